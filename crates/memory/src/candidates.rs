//! What a search asks of an index, whichever it is, and what it makes of the answer.
//!
//! Two indexes answer: the embedded one (`store/search.rs`) and that of a Qdrant
//! server (`server/`). Both only say which records may be the best; ranking, fusion
//! and scores are computed here and in `store/search.rs`, the same for both.

use std::collections::HashMap;

use uuid::Uuid;

use crate::{
    query::{Filter, RECIPROCAL_RANK_K},
    store::Question,
    tail::Scored,
    words::Words,
};

/// How near two scores of one record can come out that were computed in different
/// orders.
const ROUNDING: f32 = 2e-6;

/// The most candidates of one list. Beyond it, which of many equal records comes
/// first is decided by the order of their hashed ids.
pub(crate) const MAX_CANDIDATES: usize = 1024;

/// What to look for in an index.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// `(dimension,)`, f32, length 1.
    pub(crate) vector: &'a [f32],
    /// The query's words with their weights; none if only vectors are asked for.
    pub(crate) words: Option<&'a Words>,
    pub(crate) filter: &'a Filter,
    /// How long each list may be.
    pub(crate) fetch: usize,
}

/// The best records, best first, equal ones by id.
pub(crate) struct Lists {
    /// By the dot product of the vectors.
    pub(crate) dense: Vec<Scored>,
    /// By the dot product of the words; empty if none were wanted.
    pub(crate) sparse: Vec<Scored>,
}

/// An index of one collection.
pub(crate) trait Candidates {
    /// Why it could not answer.
    type Failure;

    /// The best records that pass the filter, about, by vector and by words. A
    /// filter on time may let records of the same millisecond through.
    fn lists(&self, wanted: &Wanted<'_>) -> Result<Lists, Self::Failure>;
}

/// The records nearest to the question's vector, with all that equal the last.
pub(crate) fn nearest<C: Candidates + ?Sized>(
    index: &C,
    question: &Question,
) -> Result<Vec<(Uuid, Option<f64>)>, C::Failure> {
    // The cut must not lie among equal scores, so look one further than asked, and
    // twice as far for as long as it does.
    let mut fetch = question.limit.saturating_add(1);
    loop {
        let wanted = Wanted {
            vector: &question.vector,
            words: None,
            filter: &question.filter,
            fetch,
        };
        let best = index.lists(&wanted)?.dense;
        let cut = best
            .get(question.limit.saturating_sub(1))
            .map(|at| at.score);
        let ties = |scored: &Scored| cut.is_none_or(|cut| scored.score >= cut - ROUNDING);
        let whole = best.len() < fetch || best.last().is_none_or(|last| !ties(last));
        if whole || fetch >= MAX_CANDIDATES {
            return Ok(best
                .into_iter()
                .filter(ties)
                .map(|scored| (scored.point, None))
                .collect());
        }
        fetch = fetch.saturating_mul(2);
    }
}

/// The best records by reciprocal rank fusion, with all that equal the last.
/// `weighed`: the question's words with their weights.
pub(crate) fn fused<C: Candidates + ?Sized>(
    index: &C,
    question: &Question,
    weighed: &Words,
    min_candidates: usize,
) -> Result<Vec<(Uuid, Option<f64>)>, C::Failure> {
    let lists = index.lists(&Wanted {
        vector: &question.vector,
        words: Some(weighed),
        filter: &question.filter,
        fetch: question.limit.saturating_mul(2).max(min_candidates),
    })?;
    let mut best = fuse(&[lists.dense, lists.sparse]);
    if let Some(cut) = best.get(question.limit.saturating_sub(1)).map(|at| at.1) {
        best.retain(|(_, score)| *score >= cut);
    }
    Ok(best
        .into_iter()
        .map(|(point, score)| (point, Some(score)))
        .collect())
}

/// Reciprocal rank fusion of lists that are ordered best first: highest sum first,
/// then by id.
fn fuse(lists: &[Vec<Scored>]) -> Vec<(Uuid, f64)> {
    let mut sums: HashMap<Uuid, f64> = HashMap::new();
    for list in lists {
        let mut rank = 0.0;
        for scored in list {
            rank += 1.0;
            *sums.entry(scored.point).or_insert(0.0) += 1.0 / (RECIPROCAL_RANK_K + rank);
        }
    }
    let mut fused: Vec<_> = sums.into_iter().collect();
    fused.sort_unstable_by(|left, right| {
        right
            .1
            .total_cmp(&left.1)
            .then_with(|| left.0.cmp(&right.0))
    });
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fusion_is_that_of_the_definition() {
        let list = |ids: &[u128]| -> Vec<Scored> {
            ids.iter()
                .map(|id| Scored {
                    point: Uuid::from_u128(*id),
                    score: 0.0,
                })
                .collect()
        };
        let fused = fuse(&[list(&[1, 2, 3]), list(&[3, 1])]);
        let expected = [
            (1, 1.0 / 61.0 + 1.0 / 62.0),
            (3, 1.0 / 63.0 + 1.0 / 61.0),
            (2, 1.0 / 62.0),
        ];
        assert_eq!(fused.len(), expected.len());
        for ((point, score), (id, sum)) in fused.into_iter().zip(expected) {
            assert_eq!(point.as_u128(), id);
            assert!((score - sum).abs() < 1e-15);
        }
        assert!(fuse(&[Vec::new(), Vec::new()]).is_empty());
    }
}
