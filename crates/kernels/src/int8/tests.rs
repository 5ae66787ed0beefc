use super::*;

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
}

fn product(weights: &[f32], x: &[f32], n_in: usize, variant: Variant) -> Vec<f32> {
    let matrix = Int8Matrix::from_f32(weights, n_in, variant);
    let rows = Int8Rows::from_f32(x, n_in);
    let n_rows = rows.n_rows();
    let mut y = vec![0.0; n_rows * matrix.n_out()];
    for panel_idx in 0..matrix.n_panels() {
        let mut out = vec![f32::NAN; n_rows * PANEL_WIDTH];
        matrix.product(panel_idx, &rows, &mut out);
        let columns = matrix.columns(panel_idx);
        for (y, out) in y
            .chunks_exact_mut(matrix.n_out())
            .zip(out.chunks_exact(PANEL_WIDTH))
        {
            y[columns.clone()].copy_from_slice(&out[..columns.len()]);
        }
    }
    y
}

/// All variants give bitwise what the scalar one gives.
fn check_variants(weights: &[f32], x: &[f32], n_in: usize) {
    let expected = product(weights, x, n_in, Variant::SCALAR);
    for variant in Variant::available() {
        let got = product(weights, x, n_in, variant);
        let same = expected
            .iter()
            .zip(&got)
            .all(|(a, b)| a.to_bits() == b.to_bits());
        let (n_out, n_rows) = (weights.len() / n_in, x.len() / n_in);
        assert!(same, "{} at {n_rows} x {n_in} x {n_out}", variant.name());
    }
}

#[test]
fn every_variant_of_this_processor_equals_the_reference_bitwise() {
    let names: Vec<_> = Variant::available().iter().map(|v| v.name()).collect();
    eprintln!("variants that ran: {}", names.join(", "));
    let mut random = Random(1);
    for (n_rows, n_in, n_out) in [
        (1, 1, 1),
        (1, 127, 63),
        (2, 128, 64),
        (3, 129, 65),
        (5, 896, 130),
        (6, 256, 128),
        (7, 300, 17),
        (13, 4864, 64),
        (64, 896, 200),
        (300, 130, 70),
    ] {
        let weights = random.numbers(n_out * n_in);
        let x = random.numbers(n_rows * n_in);
        check_variants(&weights, &x, n_in);
    }
}

#[test]
fn saturated_numbers_do_not_overflow() {
    let n_in = 4 * GROUP;
    for (weight, value) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
        let weights = vec![weight; n_in * PANEL_WIDTH];
        let x = vec![value; n_in * 7];
        check_variants(&weights, &x, n_in);
        let y = product(&weights, &x, n_in, Variant::detect());
        let expected = weight * value * n_in as f32;
        assert!(y.iter().all(|y| (y - expected).abs() < 1e-2 * n_in as f32));
    }
}

#[test]
fn the_product_is_close_to_that_of_the_numbers_themselves() {
    let mut random = Random(2);
    let (n_rows, n_in, n_out) = (9, 896, 96);
    let weights = random.numbers(n_out * n_in);
    let x = random.numbers(n_rows * n_in);
    let y = product(&weights, &x, n_in, Variant::detect());
    let mut error = 0.0;
    let mut size = 0.0;
    for (y, x) in y.chunks_exact(n_out).zip(x.chunks_exact(n_in)) {
        for (y, weights) in y.iter().zip(weights.chunks_exact(n_in)) {
            let exact: f64 = x
                .iter()
                .zip(weights)
                .map(|(x, w)| f64::from(*x) * f64::from(*w))
                .sum();
            error += (f64::from(*y) - exact).powi(2);
            size += exact.powi(2);
        }
    }
    let relative = (error / size).sqrt();
    assert!(relative < 0.01, "{relative}");
}

#[test]
fn a_row_gives_the_same_alone_and_among_others() {
    let mut random = Random(3);
    let (n_in, n_out) = (896, 100);
    let weights = random.numbers(n_out * n_in);
    let x = random.numbers(20 * n_in);
    let together = product(&weights, &x, n_in, Variant::detect());
    for (row, together) in x.chunks_exact(n_in).zip(together.chunks_exact(n_out)) {
        assert_eq!(product(&weights, row, n_in, Variant::detect()), together);
    }
}

#[test]
fn zeros_stay_zero_and_numbers_that_are_not_finite_show() {
    let n_in = 256;
    let weights = vec![0.5; n_in * 3];
    assert_eq!(
        product(&weights, &vec![0.0; n_in], n_in, Variant::detect()),
        [0.0; 3]
    );
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = vec![0.25; n_in];
        x[200] = bad;
        let y = product(&weights, &x, n_in, Variant::detect());
        assert!(y.iter().all(|y| !y.is_finite()), "{y:?}");
    }
}

#[test]
fn padding_outputs_are_zero_whatever_the_numbers() {
    let (n_in, n_out) = (GROUP + 2, 3);
    for variant in Variant::available() {
        let matrix = Int8Matrix::from_f32(&vec![0.5; n_in * n_out], n_in, variant);
        for value in [0.25, f32::NAN, f32::INFINITY] {
            let rows = Int8Rows::from_f32(&vec![value; n_in * 2], n_in);
            let mut out = vec![1.0; 2 * PANEL_WIDTH];
            matrix.product(0, &rows, &mut out);
            for out in out.chunks_exact(PANEL_WIDTH) {
                let (outputs, padding) = out.split_at(n_out);
                assert!(outputs.iter().all(|y| y.is_finite() == value.is_finite()));
                assert_eq!(padding, [0.0; PANEL_WIDTH - 3], "{}", variant.name());
            }
        }
    }
}
