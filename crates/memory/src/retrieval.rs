//! Finding records again.

use inwarden_types::SourceKind;
use uuid::Uuid;

use crate::{
    BaselineHit, BaselineQuery, KnowledgeHit, KnowledgeQuery, Memory, MemoryError, Precedent,
    PrecedentHit, PrecedentQuery, Ranking,
    journal::CollectionId,
    query::Filter,
    record::check_text,
    store::{Found, Question},
    words,
};

/// Where a page of a listing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageMark(Uuid);

impl Memory {
    /// The precedents that are best for `text` and pass the filters of `query`, best
    /// first; among equal ones by id, then by tenant.
    ///
    /// Exact, except that of a collection with more than
    /// [`crate::MemoryOptions::index_from_records`] records the older ones are searched by
    /// an approximate index. The scores are always exact.
    ///
    /// # Errors
    /// [`MemoryError::TopKRetrieval`], [`MemoryError::EmptyFilter`],
    /// [`MemoryError::FilterTooLarge`], [`MemoryError::Length`],
    /// [`MemoryError::Embed`], [`MemoryError::EmbedderContract`],
    /// [`MemoryError::Engine`], [`MemoryError::JournalDamaged`].
    pub fn precedents(
        &self,
        text: &str,
        query: &PrecedentQuery,
    ) -> Result<Vec<PrecedentHit>, MemoryError> {
        let wanted = (query.top_k_retrieval, query.ranking, query.filter());
        self.search(CollectionId::Precedents, text, wanted)?
            .into_iter()
            .map(|found| {
                let (score, fused_score) = (found.score, found.fused_score);
                let provenance = found.record.provenance(SourceKind::Precedent, score);
                let precedent = found.record.into_precedent();
                Ok(PrecedentHit {
                    precedent: precedent.map_err(|reason| self.corrupt(reason))?,
                    score,
                    fused_score,
                    provenance,
                })
            })
            .collect()
    }

    /// The documents nearest to `text` by cosine similarity, as
    /// [`Memory::precedents`] finds precedents.
    ///
    /// # Errors
    /// As [`Memory::precedents`].
    pub fn knowledge(
        &self,
        text: &str,
        top_k_retrieval: usize,
    ) -> Result<Vec<KnowledgeHit>, MemoryError> {
        self.search_knowledge(text, &KnowledgeQuery::nearest(top_k_retrieval))
    }

    /// The documents that are best for `text`, as [`Memory::precedents`] finds
    /// precedents.
    ///
    /// # Errors
    /// As [`Memory::precedents`].
    pub fn search_knowledge(
        &self,
        text: &str,
        query: &KnowledgeQuery,
    ) -> Result<Vec<KnowledgeHit>, MemoryError> {
        let wanted = (query.top_k_retrieval, query.ranking, query.filter());
        let found = self.search(CollectionId::Knowledge, text, wanted)?;
        let hits = found.into_iter().map(|found| KnowledgeHit {
            score: found.score,
            fused_score: found.fused_score,
            provenance: found.record.provenance(SourceKind::Knowledge, found.score),
            document: found.record.into_document(),
        });
        Ok(hits.collect())
    }

    /// The baselines that are best for `text`, as [`Memory::precedents`] finds
    /// precedents.
    ///
    /// # Errors
    /// As [`Memory::precedents`].
    pub fn baselines(
        &self,
        text: &str,
        query: &BaselineQuery,
    ) -> Result<Vec<BaselineHit>, MemoryError> {
        let wanted = (query.top_k_retrieval, query.ranking, query.filter());
        self.search(CollectionId::Baselines, text, wanted)?
            .into_iter()
            .map(|found| {
                let (score, fused_score) = (found.score, found.fused_score);
                let baseline = found.record.into_baseline();
                Ok(BaselineHit {
                    baseline: baseline.map_err(|reason| self.corrupt(reason))?,
                    score,
                    fused_score,
                })
            })
            .collect()
    }

    /// All precedents that pass the filters of `query`, in an order of their own, by
    /// pages: those after the page that returned `after`, at most
    /// `query.top_k_retrieval` but at most [`crate::MemoryOptions::max_batch_records`].
    /// A page can be short or empty and not the last; the last returns no mark.
    ///
    /// # Errors
    /// [`MemoryError::EmptyFilter`], [`MemoryError::FilterTooLarge`],
    /// [`MemoryError::BatchTooLarge`], [`MemoryError::JournalDamaged`].
    pub fn list_precedents(
        &self,
        query: &PrecedentQuery,
        after: Option<PageMark>,
    ) -> Result<(Vec<Precedent>, Option<PageMark>), MemoryError> {
        let filter = query.filter();
        filter.check(self.options().max_filter_values)?;
        self.check_batch_size(query.top_k_retrieval)?;
        let page = (after.map(|mark| mark.0), query.top_k_retrieval);
        let (records, next) = self.link().list(CollectionId::Precedents, &filter, page)?;
        let precedents = records
            .into_iter()
            .map(|(record, _)| {
                record
                    .into_precedent()
                    .map_err(|reason| self.corrupt(reason))
            })
            .collect::<Result<_, _>>()?;
        Ok((precedents, next.map(PageMark)))
    }

    fn search(
        &self,
        collection: CollectionId,
        text: &str,
        (limit, ranking, filter): (usize, Ranking, Filter),
    ) -> Result<Vec<Found>, MemoryError> {
        let max = self.options().max_top_k_retrieval;
        if !(1..=max).contains(&limit) {
            return Err(MemoryError::TopKRetrieval { given: limit, max });
        }
        filter.check(self.options().max_filter_values)?;
        check_text(text, self.options())?;
        let vector = self
            .embed(&[text])?
            .pop()
            .ok_or_else(|| self.broken_contract("no vector for a text".to_owned()))?;
        let words = match ranking {
            Ranking::Cosine => Vec::new(),
            Ranking::Hybrid => words::of_query(text),
        };
        self.link().search(&Question {
            collection,
            vector,
            words,
            ranking,
            limit,
            filter,
        })
    }
}
