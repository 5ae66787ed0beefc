//! Choosing and fitting a head: cross-validation in which rows of one group are
//! never both fitted and scored.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{
    Head, LearnRow, StateChoice, StateStore,
    logistic::Linear,
    windows::{WindowSamples, fit_windows, highest},
};
use crate::{ClassifierError, judge::Question};

/// Penalties that are tried, from the largest down. Windows are many for each row
/// and the fit chooses among them, so they need more.
const PENALTIES: [f64; 4] = [0.1, 0.03, 0.01, 0.003];
const PENALTIES_OF_WINDOWS: [f64; 3] = [0.3, 0.1, 0.03];

fn penalties_for(choice: &StateChoice) -> &'static [f64] {
    match choice.is_of_windows() {
        true => &PENALTIES_OF_WINDOWS,
        false => &PENALTIES,
    }
}

/// A head that was chosen and fitted, and how it was chosen.
#[derive(Clone, Debug)]
pub struct TrainedHead {
    /// Fitted on all rows.
    pub head: Head,
    /// The log-odds of each row from a fit without its fold, in the order of the rows.
    pub scores: Vec<f64>,
    /// Everything that was tried.
    pub tried: Vec<TriedHead>,
}

/// One way to read the states, under one penalty.
#[derive(Clone, Debug)]
pub struct TriedHead {
    /// Which states.
    pub choice: StateChoice,
    /// The L2 penalty on the weights of standardised columns.
    pub penalty: f64,
    /// Of the cross-fitted scores.
    pub separation: Separation,
}

/// Fits a head on the rows of `question` for each of `choices` and each penalty, with
/// groups dealt to `n_folds` parts, and keeps the one whose cross-fitted scores
/// have the largest area under the curve. `rows` are all of `question`, and their
/// states are in `store`.
///
/// # Errors
/// [`ClassifierError::LearnRows`] if states are missing, a choice has one that the
/// store has not, or a label does not occur; [`ClassifierError::StateFile`].
pub fn train_head(
    question: Question,
    rows: &[LearnRow],
    store: &mut StateStore,
    choices: &[StateChoice],
    n_folds: usize,
) -> Result<TrainedHead, ClassifierError> {
    let malicious: Vec<bool> = rows.iter().map(|row| row.malicious).collect();
    if !malicious.contains(&true) || !malicious.contains(&false) {
        return Err(ClassifierError::LearnRows("they have only one label"));
    }
    let groups: Vec<&str> = rows.iter().map(|row| row.group.as_str()).collect();
    let folds = folds_of(&groups, n_folds);
    let mut tried = Vec::new();
    let mut best: Option<(TriedHead, Vec<f64>)> = None;
    for choice in choices {
        let columns = columns_of(rows, store, choice)?;
        let penalties = penalties_for(choice);
        let scores = cross_fitted(&columns, &malicious, &folds, penalties);
        for (&penalty, scores) in penalties.iter().zip(scores) {
            let found = TriedHead {
                choice: choice.clone(),
                penalty,
                separation: Separation::of(&scores, &malicious),
            };
            tried.push(found.clone());
            if best
                .as_ref()
                .is_none_or(|(best, _)| found.separation.auc > best.separation.auc)
            {
                best = Some((found, scores));
            }
        }
    }
    let Some((best, scores)) = best else {
        return Err(ClassifierError::LearnRows("there is no choice of states"));
    };
    let columns = columns_of(rows, store, &best.choice)?;
    let fitted = fit(&columns, &malicious, &best);
    #[expect(clippy::cast_possible_truncation, reason = "a head's weights are f32")]
    let weights = fitted.weights.iter().map(|weight| *weight as f32).collect();
    let origin = store.origin(question, rows);
    Ok(TrainedHead {
        head: Head::new(origin, best.choice, fitted.intercept, weights),
        scores,
        tried,
    })
}

/// The states of `choice` of each row, of windows those of each window.
fn columns_of(
    rows: &[LearnRow],
    store: &mut StateStore,
    choice: &StateChoice,
) -> Result<Vec<Vec<Vec<f32>>>, ClassifierError> {
    let width = store.hidden_size();
    let kept = store.choice().clone();
    let mut places = Vec::with_capacity(choice.n_states());
    for &position in &choice.positions {
        for &layer in &choice.layers {
            let place = kept.index(position, layer);
            places.push(place.ok_or(ClassifierError::LearnRows("a state is not kept"))?);
        }
    }
    let first = places.iter().min().copied().unwrap_or_default();
    let step = kept.layers.len();
    let mut columns = Vec::with_capacity(rows.len());
    for row in rows {
        let found = store.find(&row.text)?;
        let states = found
            .ok_or(ClassifierError::LearnRows("states are missing"))?
            .states;
        let n_states = states.len() / width;
        let n_windows = match choice.is_of_windows() {
            true => (n_states - first / step * step) / step,
            false => 1,
        };
        let window = |idx: usize| {
            let places = places.iter().map(|place| place + idx * step);
            let states = places.map(|place| &states[place * width..][..width]);
            states.flatten().copied().collect()
        };
        columns.push((0..n_windows).map(window).collect());
    }
    Ok(columns)
}

/// How well scores tell attacks from the rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Separation {
    /// The probability that an attack scores above another row; ties count half.
    pub auc: f64,
    /// The share of attacks at or above the lowest threshold that at most 1 % of
    /// the others reach.
    pub recall_at_1: f64,
    /// The same at 3 %.
    pub recall_at_3: f64,
}

impl Separation {
    /// That of `scores` with their labels, of which there are as many.
    #[must_use]
    pub fn of(scores: &[f64], malicious: &[bool]) -> Self {
        let pick = |wanted: bool| -> Vec<f64> {
            let rows = scores.iter().zip(malicious);
            let picked = rows.filter(|(_, malicious)| **malicious == wanted);
            let mut picked: Vec<f64> = picked.map(|(score, _)| *score).collect();
            picked.sort_by(f64::total_cmp);
            picked
        };
        let (attacks, others) = (pick(true), pick(false));
        let below = |score: f64| others.partition_point(|other| *other < score) as f64;
        let upto = |score: f64| others.partition_point(|other| *other <= score) as f64;
        let wins: f64 = attacks
            .iter()
            .map(|&score| f64::midpoint(below(score), upto(score)))
            .sum();
        let recall = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a count"
            )]
            let allowed = (others.len() as f64 * share) as usize;
            // Above the first of those that must stay below.
            let bar = others.len().checked_sub(allowed + 1);
            let bar = bar.map_or(f64::NEG_INFINITY, |idx| others[idx]);
            let hits = attacks.len() - attacks.partition_point(|score| *score <= bar);
            hits as f64 / attacks.len().max(1) as f64
        };
        Self {
            auc: wins / (attacks.len() * others.len()).max(1) as f64,
            recall_at_1: recall(0.01),
            recall_at_3: recall(0.03),
        }
    }
}

/// The fold of each row, `0..n_folds`: groups from the largest down, each to the
/// fold that has fewest rows.
#[must_use]
pub fn folds_of(groups: &[&str], n_folds: usize) -> Vec<usize> {
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for group in groups {
        *sizes.entry(group).or_default() += 1;
    }
    let mut by_size: Vec<(&str, usize)> = sizes.into_iter().collect();
    by_size.sort_by(|(a, a_size), (b, b_size)| b_size.cmp(a_size).then_with(|| a.cmp(b)));
    let mut filled = vec![0; n_folds.max(1)];
    let mut fold_of: BTreeMap<&str, usize> = BTreeMap::new();
    for (group, size) in by_size {
        let fold = (0..filled.len()).min_by_key(|&fold| filled[fold]);
        let fold = fold.unwrap_or_default();
        filled[fold] += size;
        fold_of.insert(group, fold);
    }
    groups.iter().map(|group| fold_of[group]).collect()
}

/// The log-odds of each row under each of `penalties`, fitted without its fold.
fn cross_fitted(
    columns: &[Vec<Vec<f32>>],
    malicious: &[bool],
    folds: &[usize],
    penalties: &[f64],
) -> Vec<Vec<f64>> {
    let n_folds = folds.iter().max().map_or(0, |fold| fold + 1);
    let models = in_parallel(n_folds, |fold| {
        let mut outside = WindowSamples {
            rows: Vec::new(),
            malicious: Vec::new(),
        };
        for (idx, row) in columns.iter().enumerate() {
            if folds[idx] != fold {
                outside.rows.push(row);
                outside.malicious.push(malicious[idx]);
            }
        }
        fit_windows(&outside, penalties)
    });
    let of_penalty = |penalty: usize| {
        let rows = columns.iter().zip(folds);
        rows.map(|(row, fold)| highest(&models[*fold][penalty], row))
            .collect()
    };
    (0..penalties.len()).map(of_penalty).collect()
}

/// `job(0)` to `job(n_jobs - 1)`, in order, on as many threads as there are
/// processors.
pub(crate) fn in_parallel<T: Send>(n_jobs: usize, job: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let n_threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let idx = next.fetch_add(1, Ordering::Relaxed);
            if idx >= n_jobs {
                return done;
            }
            done.push((idx, job(idx)));
        }
    };
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads.min(n_jobs))
            .map(|_| scope.spawn(work))
            .collect();
        let results = threads.into_iter().map(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.flatten().collect()
    });
    done.sort_by_key(|(idx, _)| *idx);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Fits all rows as the chosen head was.
fn fit(columns: &[Vec<Vec<f32>>], malicious: &[bool], chosen: &TriedHead) -> Linear {
    let path = penalties_for(&chosen.choice).iter().copied();
    let path: Vec<f64> = path.filter(|l2| *l2 >= chosen.penalty).collect();
    let samples = WindowSamples {
        rows: columns.iter().map(Vec::as_slice).collect(),
        malicious: malicious.to_vec(),
    };
    fit_windows(&samples, &path)
        .pop()
        .unwrap_or_else(|| Linear {
            intercept: 0.0,
            weights: Vec::new(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Position;

    #[test]
    fn separation_counts_ties_half_and_above_the_allowed() {
        let scores = [3.0, 2.0, 1.0, 2.0, 0.0, 0.0];
        let malicious = [true, true, false, false, false, true];
        let separation = Separation::of(&scores, &malicious);
        // 3 beats all, 2 beats two and ties one, 0 ties one.
        assert!((separation.auc - (3.0 + 2.5 + 0.5) / 9.0).abs() < 1e-12);
        assert_eq!(separation.recall_at_3, 1.0 / 3.0);
        let many: Vec<f64> = (0..200)
            .map(f64::from)
            .chain([197.5, 198.5, 150.0])
            .collect();
        let malicious: Vec<bool> = (0..203).map(|idx| idx >= 200).collect();
        let separation = Separation::of(&many, &malicious);
        assert_eq!(separation.recall_at_1, 2.0 / 3.0);
    }

    #[test]
    fn folds_keep_groups_together_and_even() {
        let names: Vec<String> = (0..40).map(|n| format!("g{}", n % 13)).collect();
        let groups: Vec<&str> = names.iter().map(String::as_str).collect();
        let folds = folds_of(&groups, 5);
        for (a, group_a) in groups.iter().enumerate() {
            for (b, group_b) in groups.iter().enumerate() {
                assert!(group_a != group_b || folds[a] == folds[b]);
            }
        }
        for fold in 0..5 {
            let size = folds.iter().filter(|other| **other == fold).count();
            assert!((6..=10).contains(&size), "{size}");
        }
    }

    #[test]
    fn a_score_never_comes_from_a_fit_on_its_own_group() {
        // The column says the group, the label differs by group alone.
        let rows: Vec<Vec<f32>> = (0..60u8)
            .map(|n| (0..6).map(|c| f32::from(u8::from(n % 6 == c))).collect())
            .collect();
        let columns: Vec<Vec<Vec<f32>>> = rows.iter().map(|row| vec![row.clone()]).collect();
        let malicious: Vec<bool> = (0..60).map(|n| n % 2 == 0).collect();
        let names: Vec<String> = (0..60).map(|n| (n % 6).to_string()).collect();
        let groups: Vec<&str> = names.iter().map(String::as_str).collect();
        let folds = folds_of(&groups, 6);
        let scores = cross_fitted(&columns, &malicious, &folds, &[0.01]).remove(0);
        let honest = Separation::of(&scores, &malicious);
        assert!(honest.auc < 0.6, "{honest:?}");
        let chosen = TriedHead {
            choice: StateChoice {
                positions: vec![Position::EventMean],
                layers: vec![0],
            },
            penalty: 0.01,
            separation: honest,
        };
        let seen = fit(&columns, &malicious, &chosen);
        let scores: Vec<f64> = rows.iter().map(|row| seen.log_odds(row)).collect();
        assert!(Separation::of(&scores, &malicious).auc > 0.99);
    }
}
