use std::num::NonZeroUsize;

use super::*;
use crate::kv::{KvType, bf16};

/// Numbers of about -1 to 1, the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / 8_388_608.0 - 1.0
    }

    fn take(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).unwrap(), "test").unwrap()
}

/// Keys and values of `n_slots` slots, plain and in blocks.
struct Cache {
    shape: KvShape,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    blocks: Vec<KvBlock>,
}

impl Cache {
    /// `key_bias` is added to one dimension of each key.
    fn new(shape: KvShape, n_slots: usize, key_bias: f32, numbers: &mut Numbers) -> Self {
        let mut cache = Self {
            shape,
            keys: Vec::new(),
            values: Vec::new(),
            blocks: vec![KvBlock::new(&shape); n_slots.div_ceil(KV_BLOCK)],
        };
        for slot in 0..n_slots {
            let mut keys = numbers.take(shape.kv_width());
            for head in keys.chunks_mut(shape.head_dim) {
                head[shape.head_dim / 3] += key_bias;
            }
            cache.set(slot, keys, numbers.take(shape.kv_width()));
        }
        cache
    }

    fn set(&mut self, slot: usize, keys: Vec<f32>, values: Vec<f32>) {
        self.blocks[slot / KV_BLOCK].store(slot % KV_BLOCK, &keys, &values);
        let stored = |numbers: Vec<f32>| match self.shape.kv_type {
            KvType::Bf16 => numbers.into_iter().map(rounded).collect(),
            KvType::F32 => numbers,
            KvType::Int8 => numbers
                .chunks(self.shape.head_dim)
                .flat_map(in_bytes)
                .collect(),
        };
        let (keys, values) = (stored(keys), stored(values));
        if slot < self.keys.len() {
            self.keys[slot] = keys;
            self.values[slot] = values;
        } else {
            self.keys.push(keys);
            self.values.push(values);
        }
    }

    fn block_refs(&self) -> Vec<&KvBlock> {
        self.blocks.iter().collect()
    }

    /// The plain formula in f64, for one row.
    fn reference(&self, query: &[f32], slots: &[usize]) -> Vec<f64> {
        let head_dim = self.shape.head_dim;
        let group = query.len() / self.shape.kv_width();
        let mut out = Vec::new();
        for (head, query) in query.chunks(head_dim).enumerate() {
            let kv_head = head / group * head_dim;
            let of_head = |row: &[f32], dim: usize| f64::from(row[kv_head + dim]);
            let scores: Vec<f64> = slots
                .iter()
                .map(|&slot| {
                    let products =
                        (0..head_dim).map(|d| f64::from(query[d]) * of_head(&self.keys[slot], d));
                    products.sum::<f64>() / (head_dim as f64).sqrt()
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for dim in 0..head_dim {
                let values = slots.iter().map(|&slot| of_head(&self.values[slot], dim));
                let weighted = values.zip(&weights).map(|(value, weight)| value * weight);
                out.push(weighted.sum::<f64>() / sum);
            }
        }
        out
    }
}

fn rounded(x: f32) -> f32 {
    f32::from_bits(u32::from(bf16(x)) << 16)
}

/// One head's numbers as multiples of a scale.
fn in_bytes(numbers: &[f32]) -> Vec<f32> {
    let largest = numbers.iter().fold(0.0, |a: f32, x| a.max(x.abs()));
    let rounded = |x: &f32| (x * (127.0 / largest)).round_ties_even() * (largest / 127.0);
    numbers.iter().map(rounded).collect()
}

/// Slots seen by a row.
#[derive(Clone)]
struct Seen {
    until: usize,
    beyond: Vec<usize>,
}

impl Seen {
    fn random(n_slots: usize, numbers: &mut Numbers) -> Self {
        let until = numbers.below(n_slots + 1);
        let beyond = (until..n_slots).filter(|_| numbers.below(3) == 0).collect();
        Self { until, beyond }
    }

    fn slots(&self) -> Vec<usize> {
        (0..self.until).chain(self.beyond.iter().copied()).collect()
    }
}

fn visible(seen: &[Seen]) -> Vec<Visible<'_>> {
    seen.iter()
        .map(|seen| Visible {
            until: seen.until,
            beyond: &seen.beyond,
        })
        .collect()
}

/// Attention of all rows over one cache.
fn attend_all(
    pool: &Pool,
    variant: Variant,
    cache: &Cache,
    queries: &[f32],
    seen: &[Seen],
) -> Vec<f32> {
    let mut out = vec![f32::NAN; queries.len()];
    let sequence = Sequence {
        rows: 0..seen.len(),
        blocks: &cache.block_refs(),
        visible: &visible(seen),
    };
    attend(pool, variant, &cache.shape, queries, &[sequence], &mut out);
    out
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// `(n_kv_heads, heads that share one, head_dim, n_slots)`.
const SHAPES: [(usize, usize, usize, usize); 9] = [
    (1, 1, 2, 1),
    (2, 7, 64, 200),
    (2, 6, 128, 130),
    (4, 7, 128, 65),
    (2, 8, 64, 64),
    (1, 5, 18, 63),
    (3, 2, 80, 129),
    (1, 15, 30, 100),
    (12, 1, 32, 70),
];

fn each_shape() -> impl Iterator<Item = (KvShape, usize, usize)> {
    let types = [KvType::Bf16, KvType::F32, KvType::Int8];
    types.into_iter().flat_map(|kv_type| {
        SHAPES.map(|(n_kv_heads, group, head_dim, n_slots)| {
            let shape = KvShape {
                n_kv_heads,
                head_dim,
                kv_type,
            };
            (shape, n_kv_heads * group * head_dim, n_slots)
        })
    })
}

/// The largest difference from the formula that rounding explains.
fn tolerance(variant: Variant, shape: &KvShape) -> f64 {
    if shape.kv_type != KvType::F32 && variant.name() == "avx512-vnni-bf16" {
        0.02
    } else {
        2e-6
    }
}

#[test]
fn every_variant_is_close_to_the_formula() {
    let mut numbers = Numbers(1);
    for (shape, row_len, n_slots) in each_shape() {
        let cache = Cache::new(shape, n_slots, 0.0, &mut numbers);
        let seen: Vec<Seen> = (0..13)
            .map(|_| Seen::random(n_slots, &mut numbers))
            .collect();
        let queries = numbers.take(13 * row_len);
        for variant in Variant::available() {
            let out = attend_all(&pool(2), variant, &cache, &queries, &seen);
            for (row, seen) in seen.iter().enumerate() {
                let out = &out[row * row_len..][..row_len];
                if seen.slots().is_empty() {
                    assert!(out.iter().all(|&x| x == 0.0));
                    continue;
                }
                let exact = cache.reference(&queries[row * row_len..][..row_len], &seen.slots());
                for (x, exact) in out.iter().zip(exact) {
                    let difference = (f64::from(*x) - exact).abs();
                    let name = variant.name();
                    assert!(
                        difference < tolerance(variant, &shape),
                        "{name} {shape:?}: {difference}"
                    );
                }
            }
        }
    }
}

#[test]
fn variants_that_widen_agree_bitwise() {
    let mut numbers = Numbers(2);
    for (shape, row_len, n_slots) in each_shape() {
        let cache = Cache::new(shape, n_slots, 0.0, &mut numbers);
        let seen: Vec<Seen> = (0..9)
            .map(|_| Seen::random(n_slots, &mut numbers))
            .collect();
        let queries = numbers.take(9 * row_len);
        let reference = attend_all(&pool(1), Variant::SCALAR, &cache, &queries, &seen);
        for variant in Variant::available() {
            if shape.kv_type == KvType::F32 || variant.name() != "avx512-vnni-bf16" {
                let out = attend_all(&pool(2), variant, &cache, &queries, &seen);
                assert_eq!(bits(&out), bits(&reference), "{} {shape:?}", variant.name());
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_in_any_batch_on_any_number_of_threads() {
    let mut numbers = Numbers(3);
    for (shape, row_len, n_slots) in each_shape() {
        let caches: Vec<Cache> = (0..3)
            .map(|_| Cache::new(shape, n_slots, 0.0, &mut numbers))
            .collect();
        // Rows of three sequences, some of none.
        let lens = [11, 0, 23];
        let seen: Vec<Vec<Seen>> = lens
            .map(|len| {
                (0..len)
                    .map(|_| Seen::random(n_slots, &mut numbers))
                    .collect()
            })
            .to_vec();
        let queries = numbers.take(34 * row_len);
        for variant in Variant::available() {
            let alone: Vec<f32> = (0..34)
                .flat_map(|row| {
                    let (cache, row_of) = if row < 11 { (0, row) } else { (2, row - 11) };
                    let query = &queries[row * row_len..][..row_len];
                    let seen = &seen[cache][row_of..][..1];
                    attend_all(&pool(1), variant, &caches[cache], query, seen)
                })
                .collect();
            let blocks: Vec<_> = caches.iter().map(Cache::block_refs).collect();
            let visibles: Vec<_> = seen.iter().map(|seen| visible(seen)).collect();
            let rows = [0..11, 11..11, 11..34];
            let sequences: Vec<_> = (0..3)
                .map(|i| Sequence {
                    rows: rows[i].clone(),
                    blocks: &blocks[i],
                    visible: &visibles[i],
                })
                .collect();
            for threads in [1, 2, 3] {
                let mut out = vec![f32::NAN; queries.len()];
                attend(
                    &pool(threads),
                    variant,
                    &shape,
                    &queries,
                    &sequences,
                    &mut out,
                );
                assert_eq!(bits(&out), bits(&alone), "{} {shape:?}", variant.name());
            }
        }
    }
}

#[test]
fn what_a_row_does_not_see_does_not_matter() {
    let mut numbers = Numbers(4);
    for (shape, row_len, n_slots) in each_shape() {
        let mut cache = Cache::new(shape, n_slots, 0.0, &mut numbers);
        let seen = [Seen::random(n_slots, &mut numbers)];
        let queries = numbers.take(row_len);
        let before: Vec<_> = Variant::available()
            .into_iter()
            .map(|variant| attend_all(&pool(1), variant, &cache, &queries, &seen))
            .collect();
        let hidden: Vec<usize> = (0..n_slots)
            .filter(|slot| !seen[0].slots().contains(slot))
            .collect();
        for bad in [3e4, f32::NAN, f32::INFINITY] {
            for &slot in &hidden {
                let other = vec![bad; shape.kv_width()];
                cache.set(slot, other.clone(), other);
            }
            for (variant, before) in Variant::available().into_iter().zip(&before) {
                let after = attend_all(&pool(1), variant, &cache, &queries, &seen);
                assert_eq!(bits(&after), bits(before), "{} {shape:?}", variant.name());
            }
        }
    }
}

#[test]
fn large_scores_neither_overflow_nor_lose_the_rest() {
    let mut numbers = Numbers(5);
    for (shape, row_len, n_slots) in each_shape() {
        let cache = Cache::new(shape, n_slots, 160.0, &mut numbers);
        // Exact in bf16, so that all variants multiply the same numbers; the scores
        // are in the hundreds.
        let queries: Vec<f32> = numbers
            .take(3 * row_len)
            .iter()
            .map(|x| (x * 64.0).round() / 4.0)
            .collect();
        let seen = vec![
            Seen {
                until: n_slots,
                beyond: Vec::new()
            };
            3
        ];
        for variant in Variant::available() {
            let out = attend_all(&pool(1), variant, &cache, &queries, &seen);
            let tolerance = match tolerance(variant, &shape) {
                // The scale is rounded with the queries, by up to 2^-9 of the score.
                bf16 if bf16 > 0.01 => f64::INFINITY,
                // Scores of 500 have a unit in the last place of 6e-5.
                _ => 2e-3,
            };
            for (row, out) in out.chunks(row_len).enumerate() {
                let slots = seen[row].slots();
                let exact = cache.reference(&queries[row * row_len..][..row_len], &slots);
                for (x, exact) in out.iter().zip(exact) {
                    assert!(x.abs() <= 1.01, "a mean of values below 1");
                    let difference = (f64::from(*x) - exact).abs();
                    assert!(difference <= tolerance, "{}: {difference}", variant.name());
                }
            }
        }
    }
}

#[test]
fn numbers_that_are_not_finite_make_their_own_row_nan() {
    let mut numbers = Numbers(6);
    for (shape, row_len, n_slots) in each_shape() {
        let mut cache = Cache::new(shape, n_slots, 0.0, &mut numbers);
        let seen: Vec<Seen> = [n_slots, n_slots, n_slots - 1]
            .map(|until| Seen {
                until,
                beyond: Vec::new(),
            })
            .to_vec();
        let mut queries = numbers.take(3 * row_len);
        for variant in Variant::available() {
            let clean = attend_all(&pool(1), variant, &cache, &queries, &seen);
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let before = std::mem::replace(&mut queries[0], bad);
                let out = attend_all(&pool(1), variant, &cache, &queries, &seen);
                queries[0] = before;
                assert!(out[..shape.head_dim].iter().all(|x| x.is_nan()), "{bad}");
                assert_eq!(bits(&out[row_len..]), bits(&clean[row_len..]));
            }
        }
        // The last slot, which the last row does not see.
        let values = vec![f32::NAN; shape.kv_width()];
        cache.set(n_slots - 1, numbers.take(shape.kv_width()), values);
        for variant in Variant::available() {
            let out = attend_all(&pool(1), variant, &cache, &queries, &seen);
            assert!(out[..2 * row_len].iter().all(|x| x.is_nan()));
            assert!(out[2 * row_len..].iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn no_rows_are_no_work() {
    let shape = KvShape {
        n_kv_heads: 1,
        head_dim: 2,
        kv_type: KvType::Bf16,
    };
    attend(&pool(1), Variant::detect(), &shape, &[], &[], &mut []);
}

#[test]
#[should_panic(expected = "visible.end() <=")]
fn a_slot_without_a_block_is_refused() {
    let mut numbers = Numbers(7);
    let shape = KvShape {
        n_kv_heads: 1,
        head_dim: 2,
        kv_type: KvType::F32,
    };
    let cache = Cache::new(shape, 10, 0.0, &mut numbers);
    let seen = Seen {
        until: 3,
        beyond: vec![64],
    };
    attend_all(&pool(1), Variant::SCALAR, &cache, &[1.0; 2], &[seen]);
}
