//! Taking the plan's steps: each goes to those who carry it out.

use std::time::Duration;

use larder_oci::ImageKey;
use larder_plan::node::Step;
use larder_runtime::User;
use larder_store::Claim;
use tokio::{task::JoinError, time::Instant};

use super::{
    Engine, Notice,
    chores::{Chores, Done},
};

/// How long to wait after the store failed to let something go.
pub(super) const CHORES_PAUSE: Duration = Duration::from_secs(5);

/// An image that nobody wants and that stays for now.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// What uses it; nothing where the runtime did not let it go for another reason.
    pub users: Vec<User>,
    /// Why the runtime did not let it go, last time.
    pub refusal: Option<String>,
    /// Something has happened since that may let it go.
    pub try_again: bool,
}

/// How an image goes that nobody wants.
enum Away {
    Remove,
    Leave,
    GiveBack,
}

impl Engine {
    /// Takes the steps, as far as they can be taken now.
    pub(super) fn act(&mut self, steps: Vec<Step>) {
        let mut chores = Chores::default();
        let mut tags = Vec::new();
        let mut unwanted = Vec::new();
        let mut fetch = Vec::new();
        for step in steps {
            match step {
                Step::Fetch(key) => fetch.push(key),
                Step::Deliver(key) => self.start_delivery(key),
                Step::Tag { key, of } => tags.push((key, of)),
                Step::Claim(key) => chores.claims.push((key, Claim::Delete)),
                Step::Release(key) => chores.claims.push((key, Claim::Retain)),
                Step::Remove(_) if self.options.keep_unwanted => {}
                Step::Remove(key) => unwanted.push((key, Away::Remove)),
                Step::Leave(key) => unwanted.push((key, Away::Leave)),
                Step::GiveBack(key) => unwanted.push((key, Away::GiveBack)),
            }
        }
        self.start_pulls(&fetch);
        self.start_naming(tags);
        // What is wanted again, or has gone otherwise, is no longer kept.
        self.kept
            .retain(|key, _| self.forget.contains(key) || unwanted.iter().any(|(other, _)| other == key));
        let is_time = self.chores_at.is_none_or(|at| at <= Instant::now());
        if !self.chores.is_empty() || !is_time {
            return;
        }
        for (key, how) in unwanted.into_iter().filter(|(key, _)| self.may_go(key)) {
            match how {
                Away::Remove => chores.remove.push(key),
                Away::Leave => chores.leave.push(key),
                Away::GiveBack => chores.give_back.push(key),
            }
        }
        chores.forget = self.forget.iter().filter(|key| self.may_go(key)).cloned().collect();
        chores.purges = self.removals.take();
        chores.collect = std::mem::take(&mut self.is_stale);
        if chores.is_empty() {
            return;
        }
        self.tidying = chores.touched();
        let (store, runtime) = (self.store.clone(), self.link.runtime().cloned());
        self.chores.spawn(chores.run(store, runtime, self.wanted_now.clone(), self.removals.kept.clone()));
    }

    /// Whether it is time to try to take an image away: the runtime answers, what it said last time may have changed, and
    /// what was under way for the image has ended.
    fn may_go(&self, key: &ImageKey) -> bool {
        let may_have_changed = self.kept.get(key).is_none_or(|kept| kept.try_again);
        let under_way = self
            .pull_keys
            .values()
            .map(|begun| &begun.key)
            .chain(self.delivery_keys.values())
            .any(|other| other == key);
        may_have_changed && !under_way && !self.link.is_missed_by(key)
    }

    /// Takes note of what has been taken away, and of what could not be.
    pub(super) fn record_chores(&mut self, done: Result<Done, JoinError>) {
        self.tidying.clear();
        self.chores_at = None;
        let Ok(done) = done else { return };
        for notice in self.removals.record(done.purged) {
            if let Some(notices) = &self.notices {
                notices.send(notice).ok();
            }
        }
        for key in done.removed.iter().chain(&done.left) {
            // Should it be there at the next look all the same, it must not keep us busy.
            self.kept.insert(key.clone(), Kept::default());
        }
        for key in done.removed {
            if let Some(notices) = &self.notices {
                notices.send(Notice::Removed(key)).ok();
            }
        }
        for (key, users) in done.in_use {
            if self.kept.get(&key).is_none_or(|kept| kept.users != users) {
                tracing::info!(image = %key, containers = users.len(), "not wanted any more, but in use");
            }
            self.kept.insert(key, Kept { users, ..Kept::default() });
        }
        for (key, error) in done.failed {
            let refusal = Some(error.to_string());
            // What used it is still named.
            let kept = self.kept.entry(key.clone()).or_default();
            kept.try_again = false;
            // It is tried at every look: what is said each time is no news.
            if kept.refusal != refusal {
                tracing::warn!(image = %key, %error, "the container runtime does not let it go; trying again");
            }
            kept.refusal = refusal;
        }
        self.forget.retain(|key| !done.forgotten.contains(key));
        if let Some(error) = done.trouble {
            self.store_failed(&error);
            self.chores_at = Some(Instant::now() + CHORES_PAUSE);
        }
    }
}
