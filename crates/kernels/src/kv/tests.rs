use super::*;

fn shape(n_kv_heads: usize, head_dim: usize, kv_type: KvType) -> KvShape {
    KvShape {
        n_kv_heads,
        head_dim,
        kv_type,
    }
}

/// Small integers, exact in bf16 and, since the first one of each head is 127, in
/// int8; else different in each place.
fn numbers(shape: &KvShape, seed: usize) -> Vec<f32> {
    let number = |i: usize| match i % shape.head_dim {
        0 => 127.0,
        _ => f32::from(i8::try_from((i * 7 + seed * 13) % 251).unwrap_or(-1)),
    };
    (0..shape.kv_width()).map(number).collect()
}

fn each_shape() -> impl Iterator<Item = KvShape> {
    [KvType::Bf16, KvType::F32, KvType::Int8]
        .into_iter()
        .flat_map(|kv_type| [(1, 2), (2, 64), (3, 18)].map(|(n, dim)| shape(n, dim, kv_type)))
}

/// The word of a key or value, as a number.
fn key(block: &KvBlock, head: usize, slot: usize, dim: usize) -> f32 {
    let words = |row: usize| block.keys(head)[row * 4 + slot / 16].0[slot % 16];
    match block.shape.kv_type {
        KvType::Bf16 => f32::from_bits(words(dim / 2) >> (dim % 2 * 16) << 16),
        KvType::F32 => f32::from_bits(words(dim)),
        KvType::Int8 => byte(words(dim / 4), dim % 4) * scale(block.scales(head), slot),
    }
}

fn byte(word: u32, place: usize) -> f32 {
    f32::from(word.to_le_bytes()[place].cast_signed())
}

fn scale(scales: &[Line], place: usize) -> f32 {
    f32::from_bits(scales[place / 16].0[place % 16])
}

fn value(block: &KvBlock, head: usize, slot: usize, dim: usize) -> f32 {
    let lines = block.shape.value_row_lines();
    let words = |row: usize| block.values(head)[row * lines + dim / 16].0[dim % 16];
    match block.shape.kv_type {
        KvType::Bf16 => f32::from_bits(words(slot / 2) >> (slot % 2 * 16) << 16),
        KvType::F32 => f32::from_bits(words(slot)),
        KvType::Int8 => {
            byte(words(slot / 4), slot % 4) * scale(block.scales(head), KV_BLOCK + slot)
        }
    }
}

#[test]
fn what_is_stored_lies_where_it_belongs() {
    for shape in each_shape() {
        let mut block = KvBlock::new(&shape);
        // Twice, so that the second overwrites the first.
        for round in 0..2 {
            for slot in 0..KV_BLOCK {
                let seed = slot + round * 1000;
                block.store(slot, &numbers(&shape, seed), &numbers(&shape, seed + 99));
            }
        }
        for slot in 0..KV_BLOCK {
            let keys = numbers(&shape, slot + 1000);
            let values = numbers(&shape, slot + 1099);
            for i in 0..shape.kv_width() {
                let (head, dim) = (i / shape.head_dim, i % shape.head_dim);
                assert_eq!(key(&block, head, slot, dim).to_bits(), keys[i].to_bits());
                assert_eq!(
                    value(&block, head, slot, dim).to_bits(),
                    values[i].to_bits()
                );
            }
        }
    }
}

#[test]
fn copied_slots_equal_stored_ones() {
    for shape in each_shape() {
        let mut full = KvBlock::new(&shape);
        for slot in 0..KV_BLOCK {
            full.store(slot, &numbers(&shape, slot), &numbers(&shape, slot + 7));
        }
        full.store(9, &vec![f32::NAN; shape.kv_width()], &numbers(&shape, 1));
        for n_slots in [0, 1, 2, 9, 10, 33, 63, 64] {
            let mut copy = KvBlock::new(&shape);
            copy.copy_slots_from(&full, n_slots);
            let mut expected = KvBlock::new(&shape);
            for slot in 0..n_slots {
                let keys = match slot {
                    9 => vec![f32::NAN; shape.kv_width()],
                    _ => numbers(&shape, slot),
                };
                expected.store(slot, &keys, &numbers(&shape, slot + 7));
            }
            assert!(copy == expected, "{n_slots} slots of {shape:?}");
        }
    }
}

#[test]
fn bytes_give_the_block_back_and_corrupt_ones_nothing() {
    for shape in each_shape() {
        let mut block = KvBlock::new(&shape);
        block.store(3, &numbers(&shape, 1), &numbers(&shape, 2));
        block.store(
            4,
            &vec![f32::INFINITY; shape.kv_width()],
            &numbers(&shape, 2),
        );
        let bytes = block.to_le_bytes();
        assert_eq!(bytes.len(), KvBlock::n_bytes(&shape));
        assert!(KvBlock::from_le_bytes(&shape, &bytes) == Some(block));
        for len in [0, 7, 8, bytes.len() - 1] {
            assert!(KvBlock::from_le_bytes(&shape, &bytes[..len]).is_none());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(KvBlock::from_le_bytes(&shape, &longer).is_none());
        for place in [8, 10, bytes.len() - 4, bytes.len() - 2] {
            let mut corrupt = bytes.clone();
            corrupt[place] = 0x80;
            corrupt[place + 1] = 0x7f;
            let is_scale = shape.kv_type == KvType::Int8 && place > 10;
            if shape.kv_type == KvType::F32 || is_scale {
                corrupt[place | 3] = 0x7f;
                corrupt[place | 2] = 0x80;
            }
            assert!(KvBlock::from_le_bytes(&shape, &corrupt).is_none());
        }
    }
}

#[test]
fn a_slot_that_is_not_finite_is_marked_until_it_is_overwritten() {
    let shape = shape(1, 4, KvType::Bf16);
    let zeros = KvBlock::new(&shape);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let mut block = zeros.clone();
        block.store(63, &[1.0; 4], &[1.0, 1.0, bad, 1.0]);
        assert_eq!(block.not_finite(), 1 << 63);
        assert!(block.lines == zeros.lines);
        block.store(63, &[1.0; 4], &[1.0; 4]);
        assert_eq!(block.not_finite(), 0);
    }
}

#[test]
fn bf16_rounds_to_nearest_even() {
    for (x, rounded) in [
        (0.0, 0),
        (-0.0, 0x8000),
        (1.0, 0x3f80),
        (f32::from_bits(0x3f80_8000), 0x3f80),
        (f32::from_bits(0x3f80_8001), 0x3f81),
        (f32::from_bits(0x3f81_8000), 0x3f82),
        (f32::MAX, 0x7f80),
        (f32::NEG_INFINITY, 0xff80),
    ] {
        assert_eq!(bf16(x), rounded, "{x}");
    }
    assert!(f32::from_bits(u32::from(bf16(f32::from_bits(0x7f80_0001))) << 16).is_nan());
}

#[test]
fn sizes_are_those_of_the_numbers() {
    let block = KvBlock::new(&shape(2, 64, KvType::Bf16));
    let numbers = KV_BLOCK * 2 * 64 * 2 * 2;
    assert!(block.size_bytes() >= numbers && block.size_bytes() < numbers + 100);
}

#[test]
fn int8_takes_half_of_bf16_and_a_scale() {
    let block = KvBlock::new(&shape(2, 64, KvType::Int8));
    let numbers = KV_BLOCK * 2 * 2 * (64 + 4);
    assert!(block.size_bytes() >= numbers && block.size_bytes() < numbers + 100);
}

#[test]
fn int8_is_within_half_a_step_of_any_number() {
    let shape = shape(2, 6, KvType::Int8);
    let mut block = KvBlock::new(&shape);
    for (slot, size) in [1e-44, 1e-38, 1.5e-36, 1e-3, 1.0, 350.0, 1e30, 3e38]
        .into_iter()
        .enumerate()
    {
        let numbers = [0.3, -1.0, 0.7, 0.0, -0.004, 0.996].map(|x| x * size);
        let keys = [numbers, numbers.map(|x| x / 3.0)].concat();
        let values = [numbers.map(|x| x / -5.0), numbers].concat();
        block.store(slot, &keys, &values);
        for (i, (k, v)) in keys.iter().zip(&values).enumerate() {
            let (head, dim) = (i / 6, i % 6);
            // Numbers below the smallest normal one may be 0.
            let step = |largest: f32| largest * (0.5001 / 127.0) + 1.5e-36;
            let of_keys = if head == 0 { size } else { size / 3.0 };
            let of_values = if head == 1 { size } else { size / 5.0 };
            assert!(
                (key(&block, head, slot, dim) - k).abs() <= step(of_keys),
                "{k} of {of_keys}: {}",
                key(&block, head, slot, dim)
            );
            assert!(
                (value(&block, head, slot, dim) - v).abs() <= step(of_values),
                "{v}"
            );
        }
    }
}
