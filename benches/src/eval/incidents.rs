//! Incidents: events in order, through rules, model and policy.
//!
//! An event is handed over only when the product asks for it, and an action counts
//! as coming at the last event handed over. So nothing can be decided with what
//! happened later.

use std::{cell::Cell, collections::BTreeMap, path::Path};

use anyhow::Context;
use inwarden::{
    ReplayConfig, Warden, feeds,
    types::{Action, CgroupId, Event, Mode, Scope},
};
use serde_json::{Map, Value, json};

use super::{
    error::RowError,
    product::{Product, decode},
    rows::{Fields, read_lines},
};

/// The cgroup of everything in an incident: all of it is in scope.
const CGROUP: u64 = 1_000;
const BOOT: &str = "00000000-0000-4000-8000-000000000001";
/// Steps up the process tree that an event carries.
const MAX_ANCESTORS: usize = feeds::MAX_ANCESTORS;

/// An incident and what is expected of a good system.
#[derive(Clone, Debug)]
pub(crate) struct Incident {
    id: String,
    is_attack: Option<bool>,
    /// By which event an action must have come, counted from 0.
    first_decisive_event: Option<u64>,
    /// The weakest action that suffices.
    min_action: Action,
    events: Vec<Value>,
}

/// What the product did.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Course {
    pub(crate) id: String,
    pub(crate) is_attack: Option<bool>,
    /// The first action of at least the expected strength, and at which event.
    pub(crate) sufficient: Option<(usize, Action)>,
    pub(crate) is_detected: bool,
    /// Whether any event was denied, or anything quarantined or killed.
    pub(crate) is_touched: bool,
    /// Events that the product has no form for.
    pub(crate) unknown_events: usize,
    /// The action at each event that was judged.
    actions: Vec<(usize, Action)>,
}

pub(crate) fn read(path: &Path) -> Result<Option<Vec<Incident>>, RowError> {
    let Some(lines) = read_lines(path)? else {
        return Ok(None);
    };
    let incidents = lines.iter().map(Incident::of);
    incidents.collect::<Result<_, _>>().map(Some)
}

impl Incident {
    fn of(line: &Fields) -> Result<Self, RowError> {
        let expect = line.object("expect")?;
        let min_action = match &expect {
            Some(expect) => expect.optional_text("min_action")?,
            None => None,
        };
        let named = |name: &str| Action::ALL.into_iter().find(|action| action.name() == name);
        let min_action = match min_action.as_deref().map(named) {
            None => Action::Alert,
            Some(Some(action)) => action,
            Some(None) => return Err(line.wrong("expect.min_action", "the name of an action")),
        };
        let workload = line.object("workload")?;
        let mut tree = Tree::default();
        let events = line.objects("events")?;
        let events = events
            .iter()
            .enumerate()
            .map(|(idx, event)| tree.event_line(idx, event, workload.as_ref()));
        Ok(Self {
            id: line.id(),
            is_attack: line.is_attack("attack")?,
            first_decisive_event: match &expect {
                Some(expect) => expect.number("first_decisive_event")?,
                None => None,
            },
            min_action,
            events: events.collect::<Result<_, _>>()?,
        })
    }

    /// Plays the incident to `product`, everything in scope, decisions enforced.
    pub(crate) fn play(&self, product: &Product) -> anyhow::Result<Course> {
        let handed_over = Cell::new(0usize);
        let unknown = Cell::new(0usize);
        let events = self.events.iter().filter_map(|line| {
            handed_over.set(handed_over.get() + 1);
            let Ok(event) = decode(line) else {
                unknown.set(unknown.get() + 1);
                return None;
            };
            Some(Ok::<Event, feeds::FeedError>(event))
        });
        let config = ReplayConfig {
            mode: Mode::Enforce,
            scope: Scope::Cgroups([CgroupId(CGROUP)].into()),
        };
        let mut actions = Vec::new();
        for report in Warden::replay(product.analyst.clone(), config, events) {
            let report = report.context("an incident cannot be replayed")?;
            actions.push((handed_over.get() - 1, report.decision.action));
        }
        Ok(self.course(actions, unknown.get()))
    }

    fn course(&self, actions: Vec<(usize, Action)>, unknown_events: usize) -> Course {
        let sufficient = actions
            .iter()
            .find(|(_, action)| *action >= self.min_action)
            .copied();
        let in_time = |at: usize| {
            self.first_decisive_event
                .is_some_and(|decisive| at as u64 <= decisive)
        };
        Course {
            id: self.id.clone(),
            is_attack: self.is_attack,
            is_detected: sufficient.is_some_and(|(at, _)| in_time(at)),
            sufficient,
            is_touched: actions.iter().any(|(_, action)| *action >= Action::Deny),
            unknown_events,
            actions,
        }
    }
}

/// The figures of all incidents; keys as documented.
pub(crate) fn json(courses: &[Course]) -> Value {
    let count = |of: &dyn Fn(&Course) -> bool| courses.iter().filter(|course| of(course)).count();
    let attack = |course: &Course| course.is_attack == Some(true);
    let benign = |course: &Course| course.is_attack == Some(false);
    let rows = courses.iter().map(|course| {
        let actions = course.actions.iter();
        let actions = actions.map(|(at, action)| json!({ "event": at, "action": action.name() }));
        json!({
            "id": course.id,
            "detected": attack(course).then_some(course.is_detected),
            "touched": course.is_touched,
            "sufficient_at": course.sufficient.map(|(at, _)| at),
            "actions": actions.collect::<Vec<_>>(),
            "unknown_events": course.unknown_events,
        })
    });
    json!({
        "attacks": count(&attack),
        "benign": count(&benign),
        "detected": count(&|course| attack(course) && course.is_detected),
        "touched_benign": count(&|course| benign(course) && course.is_touched),
        "unknown_events": courses.iter().map(|course| course.unknown_events).sum::<usize>(),
        "rows": rows.collect::<Vec<_>>(),
    })
}

/// The processes seen so far, for parents and ancestors: what a sensor keeps.
#[derive(Default)]
struct Tree {
    /// By process number: its image and its parent.
    processes: BTreeMap<u64, (Value, Option<u64>)>,
}

impl Tree {
    /// The event as a line of event JSON.
    fn event_line(
        &mut self,
        idx: usize,
        event: &Fields,
        workload: Option<&Fields>,
    ) -> Result<Value, RowError> {
        let kind = event.text("type")?;
        let mut line = event.passed_on();
        line.insert("id".to_owned(), json!(idx.to_string()));
        match kind.as_str() {
            "prompt" => put_text(&mut line, "text", "user"),
            "tool_output" => put_text(&mut line, "output", "tool"),
            _ => {
                line.insert("kind".to_owned(), json!(kind));
            }
        }
        line.insert("cgroup_id".to_owned(), json!(CGROUP));
        if let Some(workload) = workload {
            line.insert("workload".to_owned(), workload.value_of_all());
        }
        if let Some(at) = event.seconds("t")? {
            line.insert("at_ns".to_owned(), json!(at));
        }
        let parent = event.number("ppid")?;
        if let Some(tgid) = event.number("pid")? {
            line.insert("key".to_owned(), key(tgid));
            let parent = parent.or_else(|| self.processes.get(&tgid)?.1);
            if let Some(parent) = parent {
                line.insert("parent_key".to_owned(), key(parent));
            }
            let ancestors = self.ancestors(parent, event.optional_text("parent")?);
            if !ancestors.is_empty() {
                line.remove("parent");
                line.insert("ancestors".to_owned(), Value::Array(ancestors));
            }
            let known = self.processes.get(&tgid);
            if kind == "exec" || known.is_none() {
                let image = json!({
                    "key": key(tgid),
                    "exe": event.optional_text("exe")?,
                    "argv": event.list("argv")?.unwrap_or_default(),
                });
                self.processes.insert(tgid, (image, parent));
            }
        }
        Ok(Value::Object(line))
    }

    /// The chain above `parent`, nearest first; `name`: what the parent is called
    /// where it has not been seen.
    fn ancestors(&self, parent: Option<u64>, name: Option<String>) -> Vec<Value> {
        let mut chain = Vec::new();
        let mut next = parent;
        while let Some((image, above)) = next.and_then(|tgid| self.processes.get(&tgid)) {
            if chain.len() == MAX_ANCESTORS {
                break;
            }
            chain.push(image.clone());
            next = *above;
        }
        if let (true, Some(name)) = (chain.is_empty(), name) {
            let mut ancestor = Map::new();
            ancestor.insert("comm".to_owned(), json!(name));
            if let Some(parent) = parent {
                ancestor.insert("key".to_owned(), key(parent));
            }
            chain.push(Value::Object(ancestor));
        }
        chain
    }
}

/// Makes `line` one of a text that `giver` gave, which stands in `field`.
fn put_text(line: &mut Map<String, Value>, field: &str, giver: &str) {
    let text = match line.remove(field) {
        Some(Value::String(text)) => Value::String(text),
        Some(Value::Null) | None => Value::Null,
        Some(other) => Value::String(other.to_string()),
    };
    line.insert("text".to_owned(), text);
    line.insert("kind".to_owned(), json!("text"));
    line.insert("given_by".to_owned(), json!(giver));
}

fn key(tgid: u64) -> Value {
    json!(format!("{BOOT}:{tgid}:{}", tgid.saturating_mul(1_000)))
}

#[cfg(test)]
mod tests {
    use super::super::rows::parse_lines;
    use super::*;

    fn incident(text: &str) -> Incident {
        let lines = parse_lines("incidents.jsonl", text).expect("an object");
        Incident::of(&lines[0]).expect("an incident")
    }

    const ATTACK: &str = r#"{"id":"i","label":"attack","title":"leaks","workload":{"pod":"p"},
        "expect":{"first_decisive_event":1,"min_action":"kill"},"events":[
        {"t":0,"type":"exec","pid":5,"ppid":1,"parent":"tini","exe":"/bin/a","argv":["a"]},
        {"t":0.5,"type":"exec","pid":6,"ppid":5,"parent":"a","exe":"/bin/b","argv":["b"]},
        {"t":1,"type":"metric","name":"m","value":1}]}"#;

    #[test]
    fn an_action_must_suffice_and_come_in_time() {
        let incident = incident(&ATTACK.replace('\n', " "));
        let course = |actions: &[(usize, Action)]| incident.course(actions.to_vec(), 0);
        assert!(course(&[(0, Action::Allow), (1, Action::Kill)]).is_detected);
        assert!(!course(&[(0, Action::Allow), (2, Action::Kill)]).is_detected);
        let alerted = course(&[(1, Action::Alert)]);
        assert!(!alerted.is_detected && !alerted.is_touched);
        assert!(course(&[(2, Action::Deny)]).is_touched);
    }

    #[test]
    fn events_carry_the_tree_above_them_and_nothing_that_leaks() {
        let incident = incident(&ATTACK.replace('\n', " "));
        let event = decode(&incident.events[1]).unwrap();
        assert_eq!(event.process.image.exe, "/bin/b");
        assert_eq!(event.ancestors[0].image.exe, "/bin/a");
        assert_eq!(event.ancestors[0].key, event.process.parent);
        assert_eq!(event.at, Some(inwarden::types::BootTime(500_000_000)));
        let all = format!("{:?}", incident.events);
        assert!(!all.contains("leaks") && !all.contains("decisive"), "{all}");
        let first = decode(&incident.events[0]).unwrap();
        assert_eq!(first.ancestors[0].image.comm, "tini");
    }

    #[test]
    fn every_kind_that_the_product_knows_is_handed_over() {
        use inwarden::types::EventKind;
        let lines = r#"{"events":[
            {"t":0,"type":"prompt","agent":"a","text":"sum up"},
            {"t":0,"type":"tool_output","agent":"a","tool":"read","output":{"body":"hi"}},
            {"t":0,"type":"tool_call","agent":"a","tool":"read","args":{}},
            {"t":0,"type":"file","pid":5,"exe":"/bin/a","op":"unlink","path":"/tmp/a"},
            {"t":0,"type":"connect","pid":5,"dst":"192.0.2.1","port":80,"proto":"tcp"},
            {"t":0,"type":"dns","pid":5,"query":"a.test"}]}"#;
        let incident = incident(&lines.replace('\n', " "));
        let kinds: Vec<EventKind> = incident
            .events
            .iter()
            .map(|line| decode(line).unwrap().kind())
            .collect();
        let expected = [
            EventKind::Text,
            EventKind::Text,
            EventKind::ToolCall,
            EventKind::File,
            EventKind::Connect,
            EventKind::Dns,
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn bad_incidents_name_their_field() {
        let check = |line: &str, expected: &str| {
            let lines = parse_lines("incidents.jsonl", line).unwrap();
            assert_eq!(Incident::of(&lines[0]).unwrap_err().to_string(), expected);
        };
        check("{}", "incidents.jsonl line 1: field `events` is missing");
        check(
            r#"{"events":[],"expect":{"min_action":"shout"}}"#,
            "incidents.jsonl line 1: field `expect.min_action` must be the name of an action",
        );
        check(
            r#"{"events":[{"t":1}]}"#,
            "incidents.jsonl line 1: field `type` is missing",
        );
        check(
            r#"{"events":[{"type":"exec","t":"x"}]}"#,
            "incidents.jsonl line 1: field `t` must be seconds since the start",
        );
    }
}
