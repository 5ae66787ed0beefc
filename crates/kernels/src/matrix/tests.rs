use std::num::NonZeroUsize;

use super::*;
use crate::{Pool, Variant};

/// A small generator (`SplitMix64`), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In -1..1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    fn numbers(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.unit()).collect()
    }

    /// Blocks of Q4_K with any nibbles, scales and minima, and `d` and `d_min` of
    /// the magnitudes that models have.
    fn q4_k(&mut self, n_blocks: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(n_blocks * Q4_K_BLOCK_BYTES);
        for _ in 0..n_blocks {
            let block: [u8; Q4_K_BLOCK_BYTES] =
                std::array::from_fn(|_| self.next().to_le_bytes()[7]);
            bytes.extend(block);
            let start = bytes.len() - Q4_K_BLOCK_BYTES;
            // At most 2^-6, either sign.
            bytes[start + 1] &= 0xa7;
            bytes[start + 3] &= 0xa7;
        }
        bytes
    }
}

fn pool(threads: usize) -> Pool {
    let threads = NonZeroUsize::new(threads).expect("a pool has a thread");
    Pool::new(threads, "test").expect("threads can be started")
}

fn quantized(x: &[f32], n_in: usize, variant: Variant) -> QuantizedRows {
    let mut rows = QuantizedRows::new();
    rows.quantize(&pool(1), variant, x, n_in);
    rows
}

fn product(
    pool: &Pool,
    variant: Variant,
    weights: &QuantizedMatrix,
    rows: &QuantizedRows,
) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows.n_rows() * weights.n_out()];
    let product = Product {
        weights,
        rows,
        bias: None,
        out: &mut out,
        write: Write::Overwrite,
    };
    multiply(pool, variant, &mut [product]);
    out
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// All variants give bitwise what the scalar one gives; returns that.
fn check_variants(weights: &QuantizedMatrix, x: &[f32]) -> Vec<f32> {
    let n_in = weights.n_in();
    let expected = product(
        &pool(1),
        Variant::SCALAR,
        weights,
        &quantized(x, n_in, Variant::SCALAR),
    );
    for variant in Variant::available() {
        let got = product(&pool(2), variant, weights, &quantized(x, n_in, variant));
        assert!(
            bits(&got) == bits(&expected),
            "{} at {} x {n_in} x {}",
            variant.name(),
            x.len() / n_in,
            weights.n_out()
        );
    }
    expected
}

fn int8(weights: &[f32], n_in: usize) -> QuantizedMatrix {
    Int8Matrix::from_f32(weights, n_in, Variant::detect()).into()
}

fn int4(bytes: &[u8], n_in: usize) -> QuantizedMatrix {
    Int4Matrix::from_q4_k(bytes, n_in).into()
}

/// `(n_rows, n_in, n_out)`.
const INT8_SHAPES: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (1, 127, 63),
    (2, 128, 64),
    (3, 129, 65),
    (4, 512, 64),
    (5, 896, 130),
    (6, 256, 128),
    (7, 300, 17),
    (13, 4864, 64),
    (50, 4480, 65),
    (64, 896, 200),
    (300, 130, 70),
];

/// `(n_rows, n_in, n_out)`.
const INT4_SHAPES: [(usize, usize, usize); 10] = [
    (1, 256, 1),
    (2, 512, 64),
    (3, 256, 63),
    (4, 768, 65),
    (5, 1536, 100),
    (6, 256, 128),
    (13, 8960, 64),
    (55, 8704, 10),
    (64, 256, 200),
    (300, 512, 70),
];

#[test]
fn every_variant_of_this_processor_equals_the_reference_bitwise() {
    let names: Vec<_> = Variant::available().iter().map(|v| v.name()).collect();
    eprintln!("variants that ran: {}", names.join(", "));
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    assert_eq!(names, crate::variant::tests::supported(), "one was skipped");
    let mut random = Random(1);
    for (n_rows, n_in, n_out) in INT8_SHAPES {
        let weights = int8(&random.numbers(n_out * n_in), n_in);
        check_variants(&weights, &random.numbers(n_rows * n_in));
    }
    for (n_rows, n_in, n_out) in INT4_SHAPES {
        let weights = int4(&random.q4_k(n_out * n_in / SUPER_BLOCK), n_in);
        check_variants(&weights, &random.numbers(n_rows * n_in));
    }
}

#[test]
fn every_number_of_rows_equals_the_reference_bitwise() {
    let mut random = Random(2);
    let (n_in, n_out) = (256, 80);
    let weights = [
        int8(&random.numbers(n_out * n_in), n_in),
        int4(&random.q4_k(n_out * n_in / SUPER_BLOCK), n_in),
    ];
    for weights in weights {
        for n_rows in 1..=30 {
            check_variants(&weights, &random.numbers(n_rows * n_in));
        }
    }
}

#[test]
fn every_variant_quantises_weights_alike() {
    let mut random = Random(3);
    let (n_in, n_out) = (300, 70);
    let weights = random.numbers(n_out * n_in);
    let rows = quantized(&random.numbers(3 * n_in), n_in, Variant::SCALAR);
    let [expected, others @ ..] = &*Variant::available()
        .into_iter()
        .rev()
        .map(|variant| {
            let weights = Int8Matrix::from_f32(&weights, n_in, variant).into();
            product(&pool(1), Variant::SCALAR, &weights, &rows)
        })
        .collect::<Vec<_>>()
    else {
        panic!("there is the scalar variant");
    };
    for other in others {
        assert_eq!(bits(other), bits(expected));
    }
}

#[test]
fn saturated_numbers_do_not_overflow() {
    let n_in = 4 * GROUP;
    for (weight, value) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
        let y = check_variants(
            &int8(&vec![weight; n_in * PANEL_WIDTH], n_in),
            &vec![value; n_in * 7],
        );
        let expected = weight * value * n_in as f32;
        assert!(y.iter().all(|y| (y - expected).abs() < 1e-2 * n_in as f32));
    }
    // Largest and smallest in turn, within a quad, a pair of bytes, and not at all.
    for period in [1, 2, 3, 32] {
        let alternating = |len| (0..len).map(move |idx| [1.0, -1.0][idx / period % 2]);
        let weights: Vec<f32> = alternating(n_in * 65).collect();
        let x: Vec<f32> = alternating(n_in * 7).collect();
        check_variants(&int8(&weights, n_in), &x);
        let bytes: Vec<u8> = alternating(n_in / SUPER_BLOCK * 65 * Q4_K_BLOCK_BYTES)
            .map(|x| if x > 0.0 { 0xff } else { 0 })
            .collect();
        check_variants(&int4(&with_d(bytes, 0x3c00, 0x3c00), n_in), &x);
    }
}

/// The blocks with `d` and `d_min` of these bits.
fn with_d(mut blocks: Vec<u8>, d: u16, d_min: u16) -> Vec<u8> {
    for block in blocks.chunks_exact_mut(Q4_K_BLOCK_BYTES) {
        block[..2].copy_from_slice(&d.to_le_bytes());
        block[2..4].copy_from_slice(&d_min.to_le_bytes());
    }
    blocks
}

#[test]
fn extreme_scales_and_minima_of_4_bits_are_exact() {
    let n_in = 2 * SUPER_BLOCK;
    let n_blocks = n_in / SUPER_BLOCK * 66;
    for sign in [1.0, -1.0] {
        // Every sum is as large as it can be: all nibbles 15, all scales and minima 63.
        let bytes = vec![0xff; n_blocks * Q4_K_BLOCK_BYTES];
        // 65504, the largest half, and 2^-24, the smallest.
        for (d, d_min) in [(0x7bff, 0), (0, 0x7bff), (0x0001, 0x0001), (0xbc00, 0x3c00)] {
            let bytes = with_d(bytes.clone(), d, d_min);
            let x = vec![sign; 5 * n_in];
            let y = check_variants(&int4(&bytes, n_in), &x);
            let weight = exact_q4_k(&bytes[..Q4_K_BLOCK_BYTES])[0];
            let expected = weight * f64::from(sign) * n_in as f64;
            for y in y {
                assert!((f64::from(y) - expected).abs() <= expected.abs() * 1e-6);
            }
        }
    }
}

/// The weights of one block, straight from the definition of the format.
fn exact_q4_k(block: &[u8]) -> Vec<f64> {
    let half = |bytes: &[u8]| {
        let bits = u16::from_le_bytes([bytes[0], bytes[1]]);
        let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
        let magnitude = if exponent == 0 {
            mantissa * 2.0_f64.powi(-24)
        } else {
            (1024.0 + mantissa) * 2.0_f64.powi(exponent - 25)
        };
        if bits >> 15 == 0 {
            magnitude
        } else {
            -magnitude
        }
    };
    let (d, d_min) = (half(block), half(&block[2..]));
    let (packed, nibbles) = (&block[4..16], &block[16..]);
    (0..SUPER_BLOCK)
        .map(|idx| {
            let sub = idx / 32;
            let (scale, min) = if sub < 4 {
                (packed[sub] & 63, packed[sub + 4] & 63)
            } else {
                (
                    packed[sub + 4] & 15 | packed[sub - 4] >> 6 << 4,
                    packed[sub + 4] >> 4 | packed[sub] >> 6 << 4,
                )
            };
            let byte = nibbles[idx / 64 * 32 + idx % 32];
            let nibble = if sub % 2 == 0 { byte & 15 } else { byte >> 4 };
            d * f64::from(scale) * f64::from(nibble) - d_min * f64::from(min)
        })
        .collect()
}

/// The numbers that quantised rows stand for.
fn dequantized(rows: &QuantizedRows) -> Vec<f64> {
    let mut values = Vec::new();
    for row_idx in 0..rows.n_rows() {
        for idx in 0..rows.n_in() {
            let group = rows.view().group(row_idx, idx / GROUP);
            let value = group.quad(idx % GROUP / QUAD)[idx % QUAD];
            values.push(f64::from(value) * f64::from(group.scale));
        }
    }
    values
}

#[test]
fn weights_of_4_bits_are_exactly_those_of_the_format() {
    let mut random = Random(4);
    let (n_rows, n_in, n_out) = (9, 1536, 70);
    let bytes = random.q4_k(n_out * n_in / SUPER_BLOCK);
    let rows = quantized(&random.numbers(n_rows * n_in), n_in, Variant::detect());
    let y = product(&pool(1), Variant::detect(), &int4(&bytes, n_in), &rows);
    let weights: Vec<f64> = bytes
        .chunks_exact(Q4_K_BLOCK_BYTES)
        .flat_map(exact_q4_k)
        .collect();
    let x = dequantized(&rows);
    for (y, x) in y.chunks_exact(n_out).zip(x.chunks_exact(n_in)) {
        for (y, weights) in y.iter().zip(weights.chunks_exact(n_in)) {
            let terms = x.iter().zip(weights).map(|(x, weight)| x * weight);
            let size: f64 = terms.clone().map(f64::abs).sum();
            // Rounding of sums of 12 groups in f32, nothing else.
            let error = (f64::from(*y) - terms.sum::<f64>()).abs();
            assert!(error < 1e-6 * size, "{error} of {size}");
        }
    }
}

#[test]
fn the_product_of_8_bits_is_close_to_that_of_the_numbers_themselves() {
    let mut random = Random(5);
    let (n_rows, n_in, n_out) = (9, 896, 96);
    let weights = random.numbers(n_out * n_in);
    let x = random.numbers(n_rows * n_in);
    let y = product(
        &pool(1),
        Variant::detect(),
        &int8(&weights, n_in),
        &quantized(&x, n_in, Variant::detect()),
    );
    let (mut error, mut size) = (0.0, 0.0);
    for (y, x) in y.chunks_exact(n_out).zip(x.chunks_exact(n_in)) {
        for (y, weights) in y.iter().zip(weights.chunks_exact(n_in)) {
            let terms = x.iter().zip(weights);
            let exact: f64 = terms.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            error += (f64::from(*y) - exact).powi(2);
            size += exact.powi(2);
        }
    }
    let relative = (error / size).sqrt();
    assert!(relative < 0.01, "{relative}");
}

#[test]
fn a_row_gives_the_same_alone_among_others_and_on_any_number_of_threads() {
    let mut random = Random(6);
    // More rows than a task has, more groups than stay in the cache.
    let (n_rows, n_in, n_out) = (200, 34 * SUPER_BLOCK, 130);
    let x = random.numbers(n_rows * n_in);
    let rows = quantized(&x, n_in, Variant::detect());
    for weights in [
        int8(&random.numbers(n_out * n_in), n_in),
        int4(&random.q4_k(n_out * n_in / SUPER_BLOCK), n_in),
    ] {
        let variant = Variant::detect();
        let together = product(&pool(1), variant, &weights, &rows);
        for threads in [2, 3] {
            let again = product(&pool(threads), variant, &weights, &rows);
            assert_eq!(bits(&again), bits(&together), "{threads} threads");
        }
        for row_idx in [0, 1, 7, 95, 191, 192, 199] {
            let row = quantized(&x[row_idx * n_in..][..n_in], n_in, variant);
            let alone = product(&pool(2), variant, &weights, &row);
            assert_eq!(
                bits(&alone),
                bits(&together[row_idx * n_out..][..n_out]),
                "row {row_idx}"
            );
        }
        for part in [2..5, 10..60, 100..200] {
            let rows = quantized(&x[part.start * n_in..part.end * n_in], n_in, variant);
            let some = product(&pool(1), variant, &weights, &rows);
            assert_eq!(
                bits(&some),
                bits(&together[part.start * n_out..part.end * n_out])
            );
        }
    }
}

#[test]
fn selected_outputs_give_the_same_numbers() {
    let mut random = Random(7);
    let (n_rows, n_in, n_out) = (5, 512, 150);
    let rows = quantized(&random.numbers(n_rows * n_in), n_in, Variant::detect());
    let outputs: Vec<usize> = (0..90)
        .map(|idx| idx * 37 % n_out)
        .chain([149, 0])
        .collect();
    for weights in [
        int8(&random.numbers(n_out * n_in), n_in),
        int4(&random.q4_k(n_out * n_in / SUPER_BLOCK), n_in),
    ] {
        let all = product(&pool(1), Variant::detect(), &weights, &rows);
        let selected = weights.select_outputs(&outputs);
        assert_eq!((selected.n_in(), selected.n_out()), (n_in, outputs.len()));
        let some = product(&pool(1), Variant::detect(), &selected, &rows);
        for (all, some) in all
            .chunks_exact(n_out)
            .zip(some.chunks_exact(outputs.len()))
        {
            let expected: Vec<_> = outputs.iter().map(|&output| all[output]).collect();
            assert_eq!(bits(some), bits(&expected));
        }
    }
}

#[test]
fn many_products_run_together_with_bias_and_addition() {
    let mut random = Random(8);
    let (n_rows, n_in) = (3, 256);
    let rows = quantized(&random.numbers(n_rows * n_in), n_in, Variant::detect());
    // More than one region takes.
    let weights: Vec<_> = (0..11)
        .map(|idx| int8(&random.numbers((idx * 13 + 1) * n_in), n_in))
        .collect();
    let biases: Vec<_> = weights.iter().map(|w| random.numbers(w.n_out())).collect();
    let mut outs: Vec<_> = weights
        .iter()
        .map(|w| vec![0.5; w.n_out() * n_rows])
        .collect();
    let mut products: Vec<_> = weights
        .iter()
        .zip(&mut outs)
        .zip(&biases)
        .enumerate()
        .map(|(idx, ((weights, out), bias))| Product {
            weights,
            rows: &rows,
            bias: (idx % 2 == 0).then_some(bias),
            out,
            write: [Write::Add, Write::Overwrite][idx / 2 % 2],
        })
        .collect();
    multiply(&pool(2), Variant::detect(), &mut products);
    for (idx, (weights, out)) in weights.iter().zip(&outs).enumerate() {
        let y = product(&pool(1), Variant::detect(), weights, &rows);
        for (row, out) in y
            .chunks_exact(weights.n_out())
            .zip(out.chunks_exact(weights.n_out()))
        {
            for ((y, out), bias) in row.iter().zip(out).zip(&biases[idx]) {
                let y = if idx % 2 == 0 { y + bias } else { *y };
                let y = if idx / 2 % 2 == 0 { 0.5 + y } else { y };
                assert_eq!(y.to_bits(), out.to_bits(), "product {idx}");
            }
        }
    }
}

#[test]
fn zeros_stay_zero_and_numbers_that_are_not_finite_show() {
    let n_in = SUPER_BLOCK;
    let mut random = Random(9);
    for weights in [
        int8(&vec![0.5; n_in * 3], n_in),
        int4(&random.q4_k(3), n_in),
    ] {
        for variant in Variant::available() {
            let zeros = quantized(&vec![0.0; n_in], n_in, variant);
            let y = product(&pool(1), variant, &weights, &zeros);
            assert!(y.iter().all(|y| *y == 0.0), "{y:?}");
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = vec![0.25; 2 * n_in];
                x[200] = bad;
                let rows = quantized(&x, n_in, variant);
                let y = product(&pool(1), variant, &weights, &rows);
                let (bad, good) = y.split_at(3);
                assert!(bad.iter().all(|y| !y.is_finite()), "{y:?}");
                assert!(good.iter().all(|y| y.is_finite()), "{y:?}");
            }
        }
    }
}

#[test]
fn weights_that_are_not_finite_show() {
    let mut weights = vec![0.5; 3 * 300];
    weights[450] = f32::NAN;
    for variant in Variant::available() {
        let weights = Int8Matrix::from_f32(&weights, 300, variant).into();
        let rows = quantized(&[0.25; 300], 300, variant);
        let y = product(&pool(1), variant, &weights, &rows);
        assert_eq!([true, false, true], [0, 1, 2].map(|i| y[i].is_finite()));
    }
}

fn same(left: &QuantizedRows, right: &QuantizedRows) -> bool {
    let groups = |rows: &QuantizedRows| {
        let n_groups = rows.n_in().div_ceil(GROUP);
        let places = (0..rows.n_rows()).flat_map(move |row| (0..n_groups).map(move |g| (row, g)));
        places
            .map(|(row, group)| {
                let group = rows.view().group(row, group);
                let sums = (group.offset, group.sums_high, group.sums_low);
                (group.quads, group.scale.to_bits(), sums)
            })
            .collect::<Vec<_>>()
    };
    groups(left) == groups(right)
}

#[test]
fn normalising_and_quantising_at_once_equals_one_after_the_other() {
    let mut random = Random(10);
    for (n_rows, n_in) in [(1, 1), (3, 130), (40, 896), (2, 18944)] {
        let x = random.numbers(n_rows * n_in);
        let weight = random.numbers(n_in);
        for variant in Variant::available() {
            let pool = pool(2);
            let (mut fused, mut out) = (QuantizedRows::new(), vec![0.0; x.len()]);
            let mut norm = RmsNorm {
                weight: &weight,
                eps: 1e-6,
                order: None,
            };
            fused.rms_norm(&pool, variant, &x, &norm);
            crate::rms_norm(&pool, variant, &x, &weight, 1e-6, &mut out);
            assert!(same(&fused, &quantized(&out, n_in, Variant::SCALAR)));
            let mut order: Vec<u32> = (0..).take(n_in).collect();
            order.reverse();
            order.rotate_left(n_in / 3);
            norm.order = Some(&order);
            fused.rms_norm(&pool, variant, &x, &norm);
            let moved: Vec<f32> = out
                .chunks_exact(n_in)
                .flat_map(|row| order.iter().map(|&idx| row[idx as usize]))
                .collect();
            assert!(same(&fused, &quantized(&moved, n_in, Variant::SCALAR)));
        }
    }
}

#[test]
fn a_gated_unit_is_its_products_then_swiglu_then_quantised() {
    let mut random = Random(12);
    for (n_rows, n_in, n_out) in [
        (1, 128, 128),
        (7, 896, 320),
        (49, 256, 64),
        (100, 130, 200),
        (300, 256, 129),
    ] {
        let x = random.numbers(n_rows * n_in);
        let mut weights = || int8(&random.numbers(n_out * n_in), n_in);
        let mut pairs = vec![(weights(), weights())];
        if n_in.is_multiple_of(SUPER_BLOCK) {
            let mut weights = || int4(&random.q4_k(n_out * n_in / SUPER_BLOCK), n_in);
            pairs.push((weights(), weights()));
            let mixed = (pairs[0].0.clone(), pairs[1].1.clone());
            pairs.push(mixed);
        }
        for (gate, up) in &pairs {
            let rows = quantized(&x, n_in, Variant::SCALAR);
            let single = pool(1);
            let [gates, ups] =
                [gate, up].map(|weights| product(&single, Variant::SCALAR, weights, &rows));
            let mut expected = vec![0.0; gates.len()];
            crate::swiglu(&single, Variant::SCALAR, &gates, &ups, &mut expected);
            let expected = quantized(&expected, n_out, Variant::SCALAR);
            for variant in Variant::available() {
                for threads in [1, 3] {
                    // Larger before, so that what was in it must not matter.
                    let mut out = quantized(&vec![1.0; (n_rows + 1) * n_out], n_out, variant);
                    let rows = &rows;
                    let gated = Gated { gate, up, rows };
                    multiply_gated(&pool(threads), variant, gated, &mut out);
                    let name = variant.name();
                    assert!(
                        same(&out, &expected),
                        "{name} at {n_rows} x {n_in} x {n_out}"
                    );
                }
            }
        }
    }
}

#[test]
fn weights_take_no_more_memory_than_promised() {
    let n_weights = 896 * 896;
    let weights = Int8Matrix::zeros(896, 896, Variant::SCALAR);
    assert!(weights.size_bytes() as f64 <= 1.04 * f64::from(n_weights));
    let n_weights = 1536 * 8960;
    let weights = Int4Matrix::zeros(1536, 8960);
    assert!(weights.size_bytes() as f64 <= 0.59 * f64::from(n_weights));
}
