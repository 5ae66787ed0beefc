//! What a search finds, in which order: the same whichever index answers.

use inwarden_memory::{
    Baseline, BaselineQuery, Embed as _, KnowledgeQuery, Memory, PrecedentQuery, RECIPROCAL_RANK_K,
    Ranking,
};
use inwarden_types::{Label, SourceKind, WallTime};

use crate::{
    subject::{Backend, Subject},
    support::{HashingEmbed, document, key, precedent},
};

/// A check with its name.
type Check = (&'static str, fn(&Backend));

/// All of them.
pub(crate) const CHECKS: &[Check] = &[
    (
        "a_hit_is_what_was_stored_with_its_provenance",
        a_hit_is_what_was_stored_with_its_provenance,
    ),
    (
        "scores_are_exact_cosines_from_high_to_low",
        scores_are_exact_cosines_from_high_to_low,
    ),
    (
        "ties_at_the_cut_are_decided_by_id_in_any_order_of_writing",
        ties_at_the_cut_are_decided_by_id_in_any_order_of_writing,
    ),
    (
        "filters_by_label_and_tenant_hold_together",
        filters_by_label_and_tenant_hold_together,
    ),
    (
        "one_id_in_two_tenants_is_two_precedents",
        one_id_in_two_tenants_is_two_precedents,
    ),
    (
        "the_last_of_two_with_one_key_in_a_batch_counts",
        the_last_of_two_with_one_key_in_a_batch_counts,
    ),
    (
        "knowledge_is_found_apart_from_precedents",
        knowledge_is_found_apart_from_precedents,
    ),
    (
        "hybrid_fuses_vectors_and_words_by_their_ranks",
        hybrid_fuses_vectors_and_words_by_their_ranks,
    ),
    (
        "filters_on_time_kind_and_technique_are_exact",
        filters_on_time_kind_and_technique_are_exact,
    ),
    (
        "a_changed_or_removed_record_is_found_as_it_is_now",
        a_changed_or_removed_record_is_found_as_it_is_now,
    ),
    (
        "baselines_are_found_by_workload_and_documents_by_technique",
        baselines_are_found_by_workload_and_documents_by_technique,
    ),
];

/// The ids that a query finds, in order.
fn ids(subject: &Subject, text: &str, query: &PrecedentQuery) -> Vec<String> {
    let hits = subject.search(|memory| memory.precedents(text, query));
    hits.expect("the search succeeds")
        .into_iter()
        .map(|hit| hit.precedent.id)
        .collect()
}

fn a_hit_is_what_was_stored_with_its_provenance(backend: &Backend) {
    let subject = backend.subject();
    let memory = &subject.memory;
    let stored = precedent("p1", "bash -i tcp 192.0.2.1", Label::Malicious);
    memory
        .upsert_precedents(std::slice::from_ref(&stored))
        .expect("it succeeds");
    let hits = subject
        .search(|memory| memory.precedents("bash -i tcp 192.0.2.1", &PrecedentQuery::nearest(5)))
        .expect("the search succeeds");
    assert_eq!(hits.len(), 1);
    assert_eq!(hits[0].precedent, stored);
    assert!((hits[0].score - 1.0).abs() < 1e-6, "{}", hits[0].score);
    let provenance = &hits[0].provenance;
    assert_eq!(provenance.kind, SourceKind::Precedent);
    assert_eq!(provenance.source_id, "p1");
    assert_eq!(provenance.version, "seed-1");
    assert_eq!(
        provenance.observed,
        Some(WallTime(1_700_000_000_123_456_789))
    );
    assert_eq!(provenance.score, Some(hits[0].score));
}

fn scores_are_exact_cosines_from_high_to_low(backend: &Backend) {
    let subject = backend.subject();
    let memory = &subject.memory;
    let embed = HashingEmbed::new();
    let words = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let subset = |mask: usize| {
        let chosen = words
            .iter()
            .enumerate()
            .filter(|(bit, _)| mask >> bit & 1 == 1);
        chosen.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
    };
    let texts = (1..=200).map(subset).collect::<Vec<_>>();
    let stored = texts
        .iter()
        .enumerate()
        .map(|(n, text)| precedent(&format!("p{n:03}"), text, Label::Benign))
        .collect::<Vec<_>>();
    memory.upsert_precedents(&stored).expect("it succeeds");

    let question = "a b c d";
    let query_vector = embed.embed(&[question]).expect("it succeeds").remove(0);
    let cosine = |text: &str| {
        let vector = embed.embed(&[text]).expect("it succeeds").remove(0);
        let dot = |l: &[f32], r: &[f32]| {
            l.iter()
                .zip(r)
                .map(|(l, r)| f64::from(*l) * f64::from(*r))
                .sum::<f64>()
        };
        dot(&vector, &query_vector)
            / (dot(&vector, &vector) * dot(&query_vector, &query_vector)).sqrt()
    };
    let hits = subject
        .search(|memory| memory.precedents(question, &PrecedentQuery::nearest(200)))
        .expect("the search succeeds");
    assert_eq!(hits.len(), 200);
    for hit in &hits {
        assert!((-1.0..=1.0).contains(&hit.score));
        assert!(
            (hit.score - cosine(&hit.precedent.text)).abs() < 1e-6,
            "{hit:?}"
        );
    }
    let keys = hits
        .iter()
        .map(|hit| (-hit.score, &hit.precedent.id))
        .collect::<Vec<_>>();
    assert!(
        keys.is_sorted_by(|l, r| l <= r),
        "not ordered by score, then id"
    );
}

fn ties_at_the_cut_are_decided_by_id_in_any_order_of_writing(backend: &Backend) {
    let mut stored = (0..50)
        .map(|n| precedent(&format!("p{n:02}"), "cat notes", Label::Benign))
        .collect::<Vec<_>>();
    for round in 0..2 {
        let subject = backend.subject();
        let memory = &subject.memory;
        for chunk in stored.chunks(7) {
            memory.upsert_precedents(chunk).expect("it succeeds");
        }
        let found = ids(&subject, "cat notes", &PrecedentQuery::nearest(3));
        assert_eq!(found, ["p00", "p01", "p02"], "round {round}");
        stored.reverse();
    }
}

fn filters_by_label_and_tenant_hold_together(backend: &Backend) {
    let subject = backend.subject();
    let memory = &subject.memory;
    let mut stored = Vec::new();
    for (id, label, tenant) in [
        ("p1", Label::Benign, "a"),
        ("p2", Label::Malicious, "a"),
        ("p3", Label::Benign, "b"),
        ("p4", Label::Malicious, "b"),
        ("p5", Label::Malicious, "c"),
    ] {
        let mut precedent = precedent(id, "curl 192.0.2.1", label);
        precedent.tenant = tenant.to_owned();
        stored.push(precedent);
    }
    memory.upsert_precedents(&stored).expect("it succeeds");
    let find = |labels: Option<&[Label]>, tenants: Option<&[&str]>| {
        let query = PrecedentQuery {
            labels: labels.map(<[_]>::to_vec),
            tenants: tenants.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            ..PrecedentQuery::nearest(10)
        };
        ids(&subject, "curl 192.0.2.1", &query)
    };
    assert_eq!(find(None, None), ["p1", "p2", "p3", "p4", "p5"]);
    assert_eq!(find(Some(&[Label::Malicious]), None), ["p2", "p4", "p5"]);
    assert_eq!(find(None, Some(&["b", "c"])), ["p3", "p4", "p5"]);
    assert_eq!(
        find(Some(&[Label::Malicious]), Some(&["a", "b"])),
        ["p2", "p4"]
    );
    assert_eq!(find(None, Some(&["A"])), Vec::<String>::new());
}

fn one_id_in_two_tenants_is_two_precedents(backend: &Backend) {
    let subject = backend.subject();
    let memory = &subject.memory;
    let ours = precedent("p1", "make test", Label::Benign);
    let mut theirs = ours.clone();
    theirs.tenant = "other".to_owned();
    theirs.label = Label::Malicious;
    memory
        .upsert_precedents(&[ours, theirs])
        .expect("it succeeds");
    assert_eq!(memory.precedents_len(), 2);
    assert_eq!(
        memory.remove_precedents(&[key("p1")]).expect("it succeeds"),
        1
    );
    let left = subject
        .search(|memory| memory.precedents("make test", &PrecedentQuery::nearest(5)))
        .expect("the search succeeds");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].precedent.tenant, "other");
}

fn the_last_of_two_with_one_key_in_a_batch_counts(backend: &Backend) {
    let subject = backend.subject();
    let memory = &subject.memory;
    let twice = [
        precedent("p1", "first text", Label::Benign),
        precedent("p1", "second text", Label::Malicious),
    ];
    memory.upsert_precedents(&twice).expect("it succeeds");
    let hits = subject
        .search(|memory| memory.precedents("second text", &PrecedentQuery::nearest(5)))
        .expect("the search succeeds");
    assert_eq!(hits.len(), 1);
    assert_eq!(hits[0].precedent.label, Label::Malicious);
}

fn knowledge_is_found_apart_from_precedents(backend: &Backend) {
    let subject = backend.subject();
    let memory = &subject.memory;
    memory
        .upsert_precedents(&[precedent("p1", "dump shadow", Label::Malicious)])
        .expect("it succeeds");
    let note = document("t1003", "dump credentials from shadow");
    memory
        .upsert_knowledge(std::slice::from_ref(&note))
        .expect("it succeeds");
    let hits = subject
        .search(|memory| memory.knowledge("dump shadow", 5))
        .expect("the search succeeds");
    assert_eq!(hits.len(), 1);
    assert_eq!(hits[0].document, note);
    assert_eq!(hits[0].provenance.kind, SourceKind::Knowledge);
    assert_eq!(
        memory
            .remove_knowledge(&[key("t1003")])
            .expect("it succeeds"),
        1
    );
    assert_eq!(memory.knowledge_len(), 0);
    assert!(
        subject
            .search(|memory| memory.knowledge("dump shadow", 5))
            .expect("the search succeeds")
            .is_empty()
    );
}

fn hybrid_fuses_vectors_and_words_by_their_ranks(backend: &Backend) {
    let subject = backend.subject();
    let texts = [
        "curl example org install",
        "curl example org remove",
        "wget example net install",
        "nsenter target 1",
        "tar czf backup etc",
    ];
    let stored: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(n, text)| precedent(&format!("p{n}"), text, Label::Benign))
        .collect();
    subject
        .memory
        .upsert_precedents(&stored)
        .expect("they are stored");
    let question = "curl example net install";
    let hits = subject
        .search(|memory| memory.precedents(question, &PrecedentQuery::hybrid(5)))
        .expect("the search succeeds");
    assert_eq!(hits.len(), 5);
    let share = |rank: u8| 1.0 / (RECIPROCAL_RANK_K + f64::from(rank));
    for hit in &hits {
        let fused = hit.fused_score.expect("a hybrid query fuses");
        // Ranks from 1 in both lists; whoever shares no word is in one alone.
        let by_words = (1..=5).map(share).chain([0.0]);
        let mut sums = by_words.flat_map(|words| (1..=5).map(move |rank| words + share(rank)));
        assert!(sums.any(|sum| (sum - fused).abs() < 1e-12), "{hit:?}");
    }
    let shares_words = |id: &str| !matches!(id, "p3" | "p4");
    assert!(shares_words(&hits[0].precedent.id));
    let last: Vec<_> = hits[3..].iter().map(|hit| &hit.precedent.id).collect();
    assert!(last.iter().all(|id| !shares_words(id)), "{last:?}");
}

fn filters_on_time_kind_and_technique_are_exact(backend: &Backend) {
    let subject = backend.subject();
    let at = |ns: u64| Some(WallTime(1_700_000_000_000_000_000 + ns));
    let mut stored = Vec::new();
    // Three within one millisecond, one later, one without a time.
    for (id, observed, kind, technique) in [
        ("a", at(10), "exec", "T1059"),
        ("b", at(20), "exec", "T1003"),
        ("c", at(30), "prompt", "T1059"),
        ("d", at(5_000_000), "exec", "T1059"),
        ("e", None, "exec", "T1059"),
    ] {
        let mut one = precedent(id, "curl 192.0.2.1", Label::Malicious);
        one.observed = observed;
        one.kind = Some(kind.to_owned());
        one.technique = Some(inwarden_types::Technique(technique.to_owned()));
        stored.push(one);
    }
    subject
        .memory
        .upsert_precedents(&stored)
        .expect("they are stored");
    let find = |change: &dyn Fn(&mut PrecedentQuery)| {
        let mut found = Vec::new();
        for mut query in [PrecedentQuery::nearest(5), PrecedentQuery::hybrid(5)] {
            change(&mut query);
            // All are equally near; the order is that of other checks.
            let mut ids = ids(&subject, "curl 192.0.2.1", &query);
            ids.sort_unstable();
            found.push(ids.join(""));
        }
        assert_eq!(found[0], found[1]);
        found.remove(0)
    };
    let one = |value: &str| Some(vec![value.to_owned()]);
    assert_eq!(find(&|_| {}), "abcde");
    assert_eq!(find(&|query| query.observed_from = at(20)), "bcd");
    assert_eq!(find(&|query| query.observed_before = at(20)), "a");
    assert_eq!(find(&|query| query.kinds = one("prompt")), "c");
    assert_eq!(find(&|query| query.techniques = one("T1003")), "b");
    let narrow = find(&|query| {
        query.observed_from = at(11);
        query.observed_before = at(6_000_000);
        query.kinds = one("exec");
        query.techniques = one("T1059");
        query.tenants = one("shared");
        query.labels = Some(vec![Label::Malicious]);
    });
    assert_eq!(narrow, "d");
    assert_eq!(find(&|query| query.kinds = one("EXEC")), "");
}

fn a_changed_or_removed_record_is_found_as_it_is_now(backend: &Backend) {
    let subject = backend.subject();
    let memory = &subject.memory;
    let first = precedent("p1", "make test", Label::Benign);
    let other = precedent("p2", "tar czf backup", Label::Benign);
    memory
        .upsert_precedents(&[first, other])
        .expect("they are stored");
    assert_eq!(
        ids(&subject, "make test", &PrecedentQuery::nearest(1)),
        ["p1"]
    );
    let changed = precedent("p1", "curl 192.0.2.1 sh", Label::Malicious);
    memory.upsert_precedents(&[changed]).expect("it is stored");
    let found = subject
        .search(|memory| memory.precedents("curl 192.0.2.1 sh", &PrecedentQuery::hybrid(2)))
        .expect("the search succeeds");
    assert_eq!(found[0].precedent.label, Label::Malicious);
    assert!((found[0].score - 1.0).abs() < 1e-6);
    let malicious = PrecedentQuery {
        labels: Some(vec![Label::Malicious]),
        ..PrecedentQuery::nearest(5)
    };
    assert_eq!(ids(&subject, "make test", &malicious), ["p1"]);
    assert_eq!(memory.remove_precedents(&[key("p1")]).expect("it is"), 1);
    assert_eq!(ids(&subject, "make test", &malicious), Vec::<String>::new());
    assert_eq!(
        ids(&subject, "make test", &PrecedentQuery::nearest(5)),
        ["p2"]
    );
}

fn baselines_are_found_by_workload_and_documents_by_technique(backend: &Backend) {
    let subject = backend.subject();
    let baseline = |id: &str, workload: &str| Baseline {
        id: id.to_owned(),
        text: "nginx -s reload".to_owned(),
        workload: workload.to_owned(),
        kind: Some("exec".to_owned()),
        seen: 12,
        tenant: "shared".to_owned(),
        observed: None,
        version: "1".to_owned(),
    };
    let stored = [baseline("b1", "web"), baseline("b2", "db")];
    subject
        .memory
        .upsert_baselines(&stored)
        .expect("they are stored");
    let query = BaselineQuery::of_workload("db", 5);
    let found = subject
        .search(|memory| memory.baselines("nginx reload", &query))
        .expect("the search succeeds");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].baseline, stored[1]);

    let note = document("n1", "dump credentials from shadow");
    subject
        .memory
        .upsert_knowledge(std::slice::from_ref(&note))
        .expect("it is stored");
    let about = |technique: &str| KnowledgeQuery {
        techniques: Some(vec![technique.to_owned()]),
        ranking: Ranking::Hybrid,
        ..KnowledgeQuery::nearest(5)
    };
    let find = |technique: &str| {
        let query = about(technique);
        let found = subject.search(|memory: &Memory| memory.search_knowledge("shadow", &query));
        found.expect("the search succeeds").len()
    };
    assert_eq!((find("T1003"), find("T1059")), (1, 0));
}
