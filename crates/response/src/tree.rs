//! The processes of one kill: found, stopped, killed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Instant,
};

use inwarden_types::{ProcessKey, RefusedReason, Scope, Tgid};

use crate::{
    host::{Failure, Host, Signal, StartTicks, Status},
    reach::{self, NotOpened, descendant_in_scope, refusal},
};

/// How far one process got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Had ended before it was signalled.
    Gone,
    Refused(RefusedReason),
    /// Open and in reach, not signalled yet.
    Open,
    Stopped,
    Killed,
}

pub(crate) struct Member<H> {
    pub(crate) tgid: Tgid,
    pub(crate) start: StartTicks,
    /// The exact key, where the caller gave it.
    pub(crate) key: Option<ProcessKey>,
    pub(crate) state: State,
    /// Whether it has ended; only of use once killed.
    pub(crate) ended: bool,
    /// Given back once ended, so that a large tree does not use up our files.
    handle: Option<H>,
}

/// Continues what is stopped but was not killed when it is dropped.
pub(crate) struct Tree<'a, H: Host> {
    host: &'a H,
    scope: &'a Scope,
    members: Vec<Member<H::Handle>>,
    known: HashSet<(Tgid, StartTicks)>,
}

impl<'a, H: Host> Tree<'a, H> {
    pub(crate) fn new(host: &'a H, scope: &'a Scope) -> Self {
        Self {
            host,
            scope,
            members: Vec::new(),
            known: HashSet::new(),
        }
    }

    pub(crate) fn members(&self) -> &[Member<H::Handle>] {
        &self.members
    }

    /// Adds a process that the caller named; `in_scope` is asked if it runs.
    pub(crate) fn add_named(
        &mut self,
        key: ProcessKey,
        in_scope: impl FnOnce(&Status) -> bool,
    ) -> State {
        let start = reach::ticks(self.host, key.start);
        let (state, handle) = match reach::open(self.host, key.tgid, start) {
            Ok((handle, _)) if self.host.ended(&handle, Instant::now()) => (State::Gone, None),
            Ok((handle, status)) => match refusal(self.host, &status, in_scope(&status)) {
                Some(reason) => (State::Refused(reason), None),
                None => (State::Open, Some(handle)),
            },
            Err(NotOpened::Gone) => (State::Gone, None),
            Err(NotOpened::NotPermitted) => (State::Refused(RefusedReason::NotPermitted), None),
            Err(NotOpened::Unavailable) => (State::Refused(RefusedReason::Unsupported), None),
        };
        self.push(key.tgid, start, Some(key), state, handle);
        state
    }

    /// Adds a descendant that the caller knows, as one that was found, but with its
    /// exact key.
    pub(crate) fn add_descendant(&mut self, key: ProcessKey) {
        let identity = (key.tgid, reach::ticks(self.host, key.start));
        if self.known.contains(&identity) {
            return;
        }
        let (host, scope) = (self.host, self.scope);
        self.add_named(key, |status| descendant_in_scope(host, scope, status.tgid));
    }

    /// Adds the descendants that `/proc` shows and that are not known yet; true if
    /// some of them are to be killed. Descendants out of reach are followed, but not touched.
    pub(crate) fn discover(&mut self) -> bool {
        let processes = self.host.processes();
        let mut children: HashMap<Tgid, Vec<(Tgid, StartTicks)>> = HashMap::new();
        let mut queue = VecDeque::new();
        for process in &processes {
            let identity = (process.tgid, process.start);
            children.entry(process.parent).or_default().push(identity);
            // A member that died and whose TGID now belongs to a stranger is not here.
            if self.known.contains(&identity) && self.leads_further(identity) {
                queue.push_back(identity);
            }
        }
        let mut seen = HashSet::new();
        let mut grown = false;
        while let Some(parent) = queue.pop_front() {
            if !seen.insert(parent) {
                continue;
            }
            for &(tgid, start) in children.get(&parent.0).into_iter().flatten() {
                if !self.known.contains(&(tgid, start)) {
                    grown |= self.add_found(tgid, start);
                }
                queue.push_back((tgid, start));
            }
        }
        grown
    }

    /// What is protected is no way to descendants: the children of process 1, or
    /// our own, are not its tree.
    fn leads_further(&self, identity: (Tgid, StartTicks)) -> bool {
        !self.members.iter().any(|member| {
            (member.tgid, member.start) == identity
                && member.state == State::Refused(RefusedReason::Protected)
        })
    }

    fn add_found(&mut self, tgid: Tgid, start: StartTicks) -> bool {
        let (state, handle) = match reach::open(self.host, tgid, start) {
            Ok((handle, status)) => {
                let in_scope = descendant_in_scope(self.host, self.scope, tgid);
                match refusal(self.host, &status, in_scope) {
                    Some(reason) => (State::Refused(reason), None),
                    None if self.host.ended(&handle, Instant::now()) => return false,
                    None => (State::Open, Some(handle)),
                }
            }
            Err(NotOpened::Gone | NotOpened::Unavailable) => return false,
            Err(NotOpened::NotPermitted) => (State::Refused(RefusedReason::NotPermitted), None),
        };
        self.push(tgid, start, None, state, handle);
        state == State::Open
    }

    fn push(
        &mut self,
        tgid: Tgid,
        start: StartTicks,
        key: Option<ProcessKey>,
        state: State,
        handle: Option<H::Handle>,
    ) {
        self.known.insert((tgid, start));
        self.members.push(Member {
            tgid,
            start,
            key,
            state,
            ended: false,
            handle,
        });
    }

    /// Stops what is open, from the top: members are in the order of the search.
    pub(crate) fn stop(&mut self) {
        for member in &mut self.members {
            if member.state == State::Open {
                member.send(self.host, Signal::Stop, State::Stopped);
            }
        }
    }

    /// Kills what is open or stopped.
    pub(crate) fn kill(&mut self) {
        for member in &mut self.members {
            if matches!(member.state, State::Open | State::Stopped) {
                member.send(self.host, Signal::Kill, State::Killed);
            }
        }
    }

    /// Waits for the end of all that were killed; true if they all ended.
    pub(crate) fn wait(&mut self, deadline: Instant) -> bool {
        let mut all = true;
        for member in &mut self.members {
            if member.state != State::Killed || member.ended {
                continue;
            }
            let handle = member.handle.as_ref();
            member.ended = handle.is_none_or(|handle| self.host.ended(handle, deadline));
            if member.ended {
                member.handle = None;
            }
            all &= member.ended;
        }
        all
    }
}

impl<T> Member<T> {
    fn send<H: Host<Handle = T>>(&mut self, host: &H, signal: Signal, reached: State) {
        let Some(handle) = &self.handle else { return };
        match host.signal(handle, signal) {
            Ok(()) => self.state = reached,
            Err(Failure::Gone) => {
                self.state = State::Gone;
                self.handle = None;
            }
            Err(Failure::NotPermitted) => {
                self.resume(host);
                self.state = State::Refused(RefusedReason::NotPermitted);
            }
            // Stays as it is and is tried again in the next round.
            Err(Failure::Unavailable) => {}
        }
    }

    fn resume<H: Host<Handle = T>>(&self, host: &H) {
        if self.state != State::Stopped {
            return;
        }
        let Some(handle) = &self.handle else { return };
        match host.signal(handle, Signal::Continue) {
            Ok(()) | Err(Failure::Gone) => {}
            Err(failure) => tracing::warn!(
                tgid = self.tgid.0,
                ?failure,
                "a stopped process could not be continued"
            ),
        }
    }
}

impl<H: Host> Drop for Tree<'_, H> {
    fn drop(&mut self) {
        for member in &self.members {
            member.resume(self.host);
        }
    }
}
