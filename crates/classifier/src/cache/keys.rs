//! Keys that need not be made again: a program start that is as before to the letter
//! has the key it had.

use std::sync::{Mutex, PoisonError};

use inwarden_types::{Argv, Case, Event, EventData, Image};
use sha2::{Digest as _, Sha256};

use super::{
    CacheKey, RecentCache,
    key::{KeyParts, behaviour_key},
};
use crate::{render::render_case, screen::field_values};

/// Makes the keys of cases.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Hash of what does not change while the classifier lives.
    fixed: [u8; 32],
    /// By [`exact_key`].
    known: Mutex<RecentCache<CacheKey>>,
}

impl Keys {
    /// Remembers at most `max_entries`, 64 bytes each.
    pub(crate) fn new(fixed: [u8; 32], max_entries: usize) -> Self {
        Self {
            fixed,
            known: Mutex::new(RecentCache::new(max_entries)),
        }
    }

    /// The key of `case`, with the memory's generation if there is a memory.
    pub(crate) fn of(&self, case: &Case, generation: Option<u64>) -> CacheKey {
        let Some(exact) = exact_key(case, generation) else {
            return self.make(case, generation);
        };
        // Whole after any panic: each change is one insertion.
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = lock().find(&exact) {
            return key;
        }
        let key = self.make(case, generation);
        lock().insert(exact, key);
        key
    }

    fn make(&self, case: &Case, generation: Option<u64>) -> CacheKey {
        let fields = field_values(case.last()).unwrap_or_default();
        let fields: Vec<(&str, String)> = fields.into_iter().collect();
        behaviour_key(&KeyParts {
            fixed: &self.fixed,
            generation,
            case,
            text: &render_case(case),
            fields: &fields,
            more: &[],
        })
    }
}

/// SHA-256 over all that [`super::behaviour_key`] may read of a case of one program
/// start, with the memory's `generation`. None for any other case.
fn exact_key(case: &Case, generation: Option<u64>) -> Option<CacheKey> {
    let event = case.last();
    if case.events().len() != 1 || event.data != EventData::Exec {
        return None;
    }
    let Event {
        id: _,
        at: _,
        wall: _,
        process,
        ancestors,
        data: _,
    } = event;
    let mut bytes = Vec::with_capacity(1_024);
    put_number(&mut bytes, generation);
    put_image(&mut bytes, &process.image);
    for number in [
        process.uid.map(|uid| u64::from(uid.0)),
        process.gid.map(|gid| u64::from(gid.0)),
        process.cgroup_id.map(|id| id.0),
        process.mount_ns.map(|ns| u64::from(ns.0)),
        process.pid_ns.map(|ns| u64::from(ns.0)),
        process.net_ns.map(|ns| u64::from(ns.0)),
    ] {
        put_number(&mut bytes, number);
    }
    // Of those above the parent, keys read names alone.
    let mut above = ancestors.iter().map(|ancestor| &ancestor.image);
    if let Some(parent) = above.next() {
        put_image(&mut bytes, parent);
    }
    for image in above {
        let argv0 = image.argv.args.first().map_or("", String::as_str);
        for name in [&image.exe, &image.comm, argv0] {
            put_text(&mut bytes, name);
        }
    }
    Some(Sha256::digest(&bytes).into())
}

fn put_image(bytes: &mut Vec<u8>, image: &Image) {
    let Image {
        exe,
        comm,
        argv,
        cwd,
        exec_at: _,
    } = image;
    let Argv {
        args,
        true_bytes,
        truncated,
    } = argv;
    put_number(bytes, Some(args.len() as u64));
    for text in [exe, comm, cwd].into_iter().chain(args) {
        put_text(bytes, text);
    }
    put_number(bytes, Some(*true_bytes));
    bytes.push(u8::from(*truncated));
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn put_number(bytes: &mut Vec<u8>, number: Option<u64>) {
    bytes.push(u8::from(number.is_some()));
    bytes.extend(number.unwrap_or(0).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use inwarden_types::{
        Ancestor, BootTime, CgroupId, EventId, Gid, NamespaceInode, Process, Uid,
    };

    use super::*;

    fn start(change: impl FnOnce(&mut Event)) -> Case {
        let image = |exe: &str| Image {
            exe: exe.to_owned(),
            comm: "sh".to_owned(),
            argv: Argv::complete(vec!["sh".to_owned(), "-c".to_owned(), "id".to_owned()]),
            cwd: "/srv".to_owned(),
            exec_at: None,
        };
        let mut event = Event {
            id: EventId::External("1".to_owned()),
            at: None,
            wall: None,
            process: Process {
                image: image("/bin/sh"),
                uid: Some(Uid(0)),
                ..Process::default()
            },
            ancestors: ["/bin/bash", "/usr/sbin/cron"]
                .map(|exe| Ancestor {
                    key: None,
                    image: image(exe),
                })
                .to_vec(),
            data: EventData::Exec,
        };
        change(&mut event);
        Case::of(event)
    }

    #[test]
    fn whatever_a_key_may_read_is_told_apart() {
        let image = |change: fn(&mut Image)| {
            [
                start(|event| change(&mut event.process.image)),
                start(|event| change(&mut event.ancestors[0].image)),
            ]
        };
        let mut cases = vec![
            start(|_| {}),
            start(|event| event.process.uid = None),
            start(|event| event.process.uid = Some(Uid(1))),
            start(|event| event.process.gid = Some(Gid(0))),
            start(|event| event.process.cgroup_id = Some(CgroupId(0))),
            start(|event| event.process.mount_ns = Some(NamespaceInode(0))),
            start(|event| event.process.pid_ns = Some(NamespaceInode(0))),
            start(|event| event.process.net_ns = Some(NamespaceInode(0))),
            start(|event| event.ancestors.clear()),
            start(|event| event.ancestors.truncate(1)),
        ];
        for change in [
            (|image| image.exe.push('x')) as fn(&mut Image),
            |image| image.comm.push('x'),
            |image| image.argv.args[0].push('x'),
            |image| image.argv.args.clear(),
        ] {
            cases.push(start(|event| change(&mut event.ancestors[1].image)));
        }
        cases.extend(image(|image| image.exe.push('x')));
        cases.extend(image(|image| image.comm.push('x')));
        cases.extend(image(|image| image.cwd.push('x')));
        cases.extend(image(|image| image.argv.args[1].push('x')));
        cases.extend(image(|image| image.argv.args[0].push_str("-c")));
        cases.extend(image(|image| image.argv.args.push(String::new())));
        cases.extend(image(|image| image.argv.true_bytes += 1));
        cases.extend(image(|image| image.argv.truncated = true));
        let keys = cases.iter().map(|case| exact_key(case, None).unwrap());
        let keys: std::collections::BTreeSet<CacheKey> = keys.collect();
        assert_eq!(keys.len(), cases.len());
        assert!(!keys.contains(&exact_key(&cases[0], Some(0)).unwrap()));
    }

    #[test]
    fn times_and_names_of_events_are_left_out_and_other_cases_have_none() {
        let base = exact_key(&start(|_| {}), None);
        let later = start(|event| {
            event.id = EventId::External("2".to_owned());
            event.at = Some(BootTime(7));
            event.process.image.exec_at = Some(BootTime(6));
        });
        assert_eq!(exact_key(&later, None), base);
        assert_eq!(
            exact_key(&start(|event| event.data = EventData::Fork), None),
            None
        );
    }
}
