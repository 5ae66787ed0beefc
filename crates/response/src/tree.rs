//! The processes of one kill: found, stopped, killed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Instant,
};

use inwarden_types::{ProcessKey, RefusedReason, Scope, Tgid};

use crate::{
    host::{Failure, Host, Signal, StartTicks, Status},
    reach::{self, descendant_in_scope, refusal, untold},
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

/// What a search for descendants gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    /// Whether some were found that are to be killed.
    pub(crate) grown: bool,
    /// Whether none can have been missed for want of reading it.
    pub(crate) complete: bool,
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

    /// Adds the decided process, even if it is gone; `in_scope` is asked if it runs.
    pub(crate) fn add_target(
        &mut self,
        key: ProcessKey,
        in_scope: impl FnOnce(&Status) -> Result<bool, Failure>,
    ) -> State {
        let start = reach::ticks(self.host, key.start);
        let (state, handle) = self.look_at(key.tgid, start, in_scope);
        self.push(key.tgid, start, Some(key), state, handle);
        state
    }

    /// Adds a descendant that the caller knows, as one that was found, but with its
    /// exact key. One that is gone is left out: the caller can know thousands.
    pub(crate) fn add_descendant(&mut self, key: ProcessKey) {
        let start = reach::ticks(self.host, key.start);
        if self.known.contains(&(key.tgid, start)) {
            return;
        }
        let (host, scope) = (self.host, self.scope);
        let in_scope = |status: &Status| descendant_in_scope(host, scope, status.tgid);
        let (state, handle) = self.look_at(key.tgid, start, in_scope);
        if state != State::Gone {
            self.push(key.tgid, start, Some(key), state, handle);
        }
    }

    fn look_at(
        &self,
        tgid: Tgid,
        start: StartTicks,
        in_scope: impl FnOnce(&Status) -> Result<bool, Failure>,
    ) -> (State, Option<H::Handle>) {
        match reach::open(self.host, tgid, start) {
            Ok((handle, _)) if self.host.ended(&handle, Instant::now()) => (State::Gone, None),
            Ok((handle, status)) => match refusal(self.host, &status, in_scope(&status)) {
                Some(reason) => (State::Refused(reason), None),
                None => (State::Open, Some(handle)),
            },
            Err(Failure::Gone) => (State::Gone, None),
            Err(failure) => (State::Refused(untold(failure)), None),
        }
    }

    /// Adds the descendants that `/proc` shows and that are not known yet.
    /// Descendants out of reach are followed, but not touched.
    pub(crate) fn discover(&mut self) -> Search {
        let listing = self.host.processes();
        let mut search = Search {
            grown: false,
            complete: listing.complete,
        };
        let mut children: HashMap<Tgid, Vec<(Tgid, StartTicks)>> = HashMap::new();
        let mut queue = VecDeque::new();
        for process in &listing.processes {
            let identity = (process.tgid, process.start);
            children.entry(process.parent).or_default().push(identity);
            // A member that died and whose TGID now belongs to a stranger is not here.
            if self.known.contains(&identity) && self.leads_further(identity) {
                queue.push_back(identity);
            }
        }
        let mut seen = HashSet::new();
        while let Some(parent) = queue.pop_front() {
            if !seen.insert(parent) {
                continue;
            }
            for &(tgid, start) in children.get(&parent.0).into_iter().flatten() {
                if !self.known.contains(&(tgid, start)) {
                    self.add_found(tgid, start, &mut search);
                }
                queue.push_back((tgid, start));
            }
        }
        search
    }

    /// What is protected is no way to descendants: the children of process 1, or
    /// our own, are not its tree.
    fn leads_further(&self, identity: (Tgid, StartTicks)) -> bool {
        !self.members.iter().any(|member| {
            (member.tgid, member.start) == identity
                && member.state == State::Refused(RefusedReason::Protected)
        })
    }

    fn add_found(&mut self, tgid: Tgid, start: StartTicks, search: &mut Search) {
        let (host, scope) = (self.host, self.scope);
        match self.look_at(tgid, start, |_| descendant_in_scope(host, scope, tgid)) {
            (State::Gone, _) => {}
            // The next search tries again.
            (State::Refused(RefusedReason::Unsupported), _) => search.complete = false,
            (state, handle) => {
                self.push(tgid, start, None, state, handle);
                search.grown |= state == State::Open;
            }
        }
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
