//! Fitting on rows of several windows, of which only some need be malicious.
//!
//! A row's score is its most malicious window's (multiple-instance learning as in
//! MI-SVM: Andrews, Tsochantaridis and Hofmann 2002, with the logistic loss). The
//! first fit takes every window for what its row is. Then, in turn, each attack is
//! represented by the window that scores highest, ordinary rows half by theirs and
//! half by all their windows, and the model is fitted again. Each row weighs the
//! same, however many windows it has. A row of one window is an ordinary sample.

use super::logistic::{Linear, MAX_STEPS, Samples, Standardised};

/// Fits after the first.
const ROUNDS: usize = 4;
/// Steps of one fit: the next one begins where it ended.
const STEPS: usize = 60;
/// An ordinary row's share that is its highest window's.
const HIGHEST_SHARE: f64 = 0.5;

/// Rows and what they are.
pub(crate) struct WindowSamples<'a> {
    /// Of each row its windows, at least one, each of the same width.
    pub(crate) rows: Vec<&'a [Vec<f32>]>,
    pub(crate) malicious: Vec<bool>,
}

/// The highest log-odds of any of `windows`.
pub(crate) fn highest(model: &Linear, windows: &[Vec<f32>]) -> f64 {
    let scores = windows.iter().map(|window| model.log_odds(window));
    scores.fold(f64::NEG_INFINITY, f64::max)
}

/// Fits one model for each of `penalties`, from the largest down.
pub(crate) fn fit_windows(samples: &WindowSamples<'_>, penalties: &[f64]) -> Vec<Linear> {
    let row_of: Vec<usize> = samples
        .rows
        .iter()
        .enumerate()
        .flat_map(|(row, windows)| std::iter::repeat_n(row, windows.len()))
        .collect();
    let labels = row_of.iter().map(|&row| samples.malicious[row]);
    let mut flat = Samples {
        rows: samples
            .rows
            .iter()
            .flat_map(|row| row.iter().map(Vec::as_slice))
            .collect(),
        malicious: labels.collect(),
        weights: Vec::new(),
    };
    let share = |row: usize| 1.0 / samples.rows[row].len() as f64;
    let even: Vec<f64> = row_of.iter().map(|&row| share(row)).collect();
    let standardised = Standardised::of(&flat.rows);
    let is_plain = row_of.len() == samples.rows.len();
    let mut at = standardised.origin();
    let mut fit = |weights: &[f64], at: Vec<f64>, l2: f64| {
        flat.weights = weights.to_vec();
        let steps = if is_plain { MAX_STEPS } else { STEPS };
        standardised.fit(&flat, at, l2, steps)
    };
    let fitted = penalties.iter().map(|&l2| {
        at = fit(&even, std::mem::take(&mut at), l2);
        let mut turned = at.clone();
        for _ in 0..if is_plain { 0 } else { ROUNDS } {
            let model = standardised.undo(&turned);
            let weights = weights_for(samples, &model);
            turned = fit(&weights, turned, l2);
        }
        standardised.undo(&turned)
    });
    fitted.collect()
}

/// What each window counts when `model` says which are the highest.
fn weights_for(samples: &WindowSamples<'_>, model: &Linear) -> Vec<f64> {
    let mut weights = Vec::new();
    for (windows, &malicious) in samples.rows.iter().zip(&samples.malicious) {
        let scores: Vec<f64> = windows
            .iter()
            .map(|window| model.log_odds(window))
            .collect();
        let top =
            (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
        let (of_top, of_each) = match malicious {
            true => (1.0, 0.0),
            false => (
                HIGHEST_SHARE,
                (1.0 - HIGHEST_SHARE) / scores.len().max(1) as f64,
            ),
        };
        let of_window = |idx: usize| match Some(idx) == top {
            true => of_each + of_top,
            false => of_each,
        };
        weights.extend((0..scores.len()).map(of_window));
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Separation;

    /// Rows of ten windows; of an attack, one has the sign in its first column. The
    /// second column is noise that differs from window to window.
    fn rows(of_windows: usize) -> (Vec<Vec<Vec<f32>>>, Vec<bool>) {
        let malicious: Vec<bool> = (0..80).map(|row| row % 2 == 0).collect();
        let rows = malicious.iter().enumerate().map(|(row, &malicious)| {
            let window = |idx: usize| {
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                let noise = ((row * 31 + idx * 17) % 13) as f32 - 6.0;
                let is_sign = malicious && idx == row % of_windows;
                vec![f32::from(u8::from(is_sign)) * 2.0 + noise * 0.05, noise]
            };
            (0..of_windows).map(window).collect()
        });
        (rows.collect(), malicious)
    }

    #[test]
    fn one_window_of_many_is_found() {
        let (rows, malicious) = rows(10);
        let samples = WindowSamples {
            rows: rows.iter().map(Vec::as_slice).collect(),
            malicious: malicious.clone(),
        };
        let models = fit_windows(&samples, &[0.1, 0.01]);
        for model in &models {
            let scores: Vec<f64> = rows.iter().map(|row| highest(model, row)).collect();
            let found = Separation::of(&scores, &malicious);
            assert!(found.auc > 0.99, "{found:?}");
        }
        // The mean over a row has the sign diluted to a tenth, under the noise.
        assert!(models[1].weights[0] > models[1].weights[1].abs());
    }

    #[test]
    fn rows_of_one_window_are_fitted_as_samples_are() {
        let (rows, malicious) = rows(1);
        let samples = WindowSamples {
            rows: rows.iter().map(Vec::as_slice).collect(),
            malicious: malicious.clone(),
        };
        let plain = Samples {
            rows: rows.iter().map(|row| row[0].as_slice()).collect(),
            malicious,
            weights: vec![1.0; rows.len()],
        };
        let models = fit_windows(&samples, &[0.1]);
        let standardised = Standardised::of(&plain.rows);
        let expected = standardised.fit(&plain, standardised.origin(), 0.1, MAX_STEPS);
        assert_eq!(models, [standardised.undo(&expected)]);
    }
}
