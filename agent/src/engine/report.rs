//! What the engine says about the images.

use k8s_openapi::jiff::Timestamp;
use larder_crds::{FailureReason, NodeRemovalStatus, PullCount};
use larder_oci::{Digest, ImageKey, Platform};
use larder_runtime::User;
use tokio::time::Instant;

use super::{
    Engine,
    image::Failure,
    observe::{Found, Standing},
};

/// How images stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The generation that the report is about. `None` before the engine has taken anything up.
    pub generation: Option<i64>,
    /// The wanted images, in the order in which they are wanted; then those that nobody wants and that stay while
    /// containers use them ([`State::InUse`]).
    pub images: Vec<ImageReport>,
    /// The container runtime, such as `containerd v2.2.1`.
    pub runtime: Option<String>,
    /// What the rules for removal match, in the order of the rules.
    pub removals: Vec<NodeRemovalStatus>,
    /// What has been fetched since the engine started.
    pub pulls: PullCount,
}

impl Report {
    /// Whether nothing is under way: every image is ready, has failed, or stays for others to let it go.
    pub(crate) fn is_settled(&self) -> bool {
        let is_settled =
            |state: &State| matches!(state, State::Ready { .. } | State::Failed { .. } | State::InUse { .. });
        self.images.iter().all(|image| is_settled(&image.state))
    }
}

/// How one image stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReport {
    /// The name as it was given.
    pub image: String,
    /// The platform as it was given.
    pub platform: Option<String>,
    /// Where it stands.
    pub state: State,
    /// The digest that its tag stands for in the registry, where that is another than the one that is held.
    pub new_digest: Option<Digest>,
    /// When its tag was last looked up, where it is looked up again and again.
    pub refreshed: Option<Timestamp>,
}

impl ImageReport {
    /// A report of which nothing more is known than where the image stands.
    #[must_use]
    pub fn new(image: &str, platform: Option<&str>, state: State) -> Self {
        Self {
            image: image.to_owned(),
            platform: platform.map(str::to_owned),
            state,
            new_digest: None,
            refreshed: None,
        }
    }
}

/// Where an image stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its turn has not come.
    Pending,
    /// It is being fetched.
    Pulling {
        /// Bytes that are there.
        present: u64,
        /// Bytes in all, 0 while that is not known.
        total: u64,
    },
    /// Every byte is there, verified. The runtime is being given it.
    Delivering {
        /// The digest that the name stands for.
        digest: Digest,
        /// Bytes in all.
        size: u64,
    },
    /// It is ready, and archives of it are being written.
    Saving {
        /// The digest that the name stands for.
        digest: Digest,
        /// Bytes in all.
        size: u64,
    },
    /// It is there, every byte verified, in the runtime too where there is one; and in the archives that are asked for.
    Ready {
        /// The digest that the name stands for.
        digest: Digest,
        /// Bytes in all.
        size: u64,
    },
    /// It could not be had.
    Failed {
        /// Why, in a word.
        reason: FailureReason,
        /// Why, in a sentence.
        message: String,
        /// When it is tried again; never, where the name can't even be read. Not said of what is tried all the time.
        retry_time: Option<Timestamp>,
    },
    /// Nobody wants it any more, and containers use it.
    InUse {
        /// What uses it, in a sentence.
        message: String,
    },
}

/// Something that a report can't show, since it is over by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Somebody had removed a wanted image; it is back.
    Restored(ImageKey),
    /// An image that nobody wants is gone.
    Removed(ImageKey),
    /// Images are gone since a rule takes them away.
    RemovedByRule {
        /// The `ImageCache` whose rule it is.
        cache: String,
        /// The rule's `image`.
        rule: String,
        /// The images, each with the names that it had.
        images: Vec<String>,
    },
}

pub(super) fn report(engine: &Engine) -> Report {
    let now = Instant::now();
    let wanted = engine.desired.images.iter().map(|wanted| {
        let state = match (&engine.trouble, &wanted.key) {
            (Some(trouble), _) => failed(FailureReason::StoreError, trouble),
            (None, Err(unreadable)) => failed(FailureReason::InvalidReference, unreadable),
            (None, Ok(key)) => {
                engine.with_archives(wanted, engine.with_further_names(key, state(engine, key, now), now))
            }
        };
        let report = ImageReport::new(&wanted.image, wanted.platform.as_deref(), state);
        let Some((key, known)) =
            wanted.key.as_ref().ok().and_then(|key| Some((key, engine.images.get(key)?)))
        else {
            return report;
        };
        let held = engine.observed.complete(key).map(|found| &found.digest);
        let new_digest = held.and_then(|held| known.look.moved(held)).cloned();
        ImageReport { new_digest, refreshed: known.look.refreshed(), ..report }
    });
    let in_use = engine.kept.iter().filter(|(_, kept)| !kept.users.is_empty()).map(|(key, kept)| {
        let platform = (key.platform != Platform::host()).then(|| key.platform.to_string());
        let state = State::InUse { message: describe_users(&kept.users) };
        ImageReport::new(key.name.as_str(), platform.as_deref(), state)
    });
    Report {
        generation: engine.desired.generation,
        images: wanted.chain(in_use).collect(),
        runtime: engine.link.description().cloned(),
        removals: engine.removals.statuses(),
        pulls: engine.pull_count,
    }
}

/// Said of an image that was given to a runtime which is not to be found any more.
const ELSEWHERE: &str = "layers of it were left to the node's container runtime, and there is none: let --runtime and \
                         --runtime-endpoint name it, or take the image out of its ImageCache and put it back, so that they \
                         are fetched again";

pub(super) fn failed(reason: FailureReason, message: &str) -> State {
    State::Failed { reason, message: message.to_owned(), retry_time: None }
}

pub(super) fn of_failure(failure: &Failure) -> State {
    let Failure { reason, message, retry_time, .. } = failure.clone();
    State::Failed { reason, message, retry_time }
}

pub(super) fn state(engine: &Engine, key: &ImageKey, now: Instant) -> State {
    let Some(image) = engine.images.get(key) else { return State::Pending };
    let away = engine.link.trouble(now).filter(|_| engine.link.takes(key));
    if let Some(found) = engine.observed.complete(key) {
        match (&found.standing, away, &image.delivery_failure) {
            // An image that is there stays ready while its tag is looked up again, and when that fails.
            (Standing::NotNeeded | Standing::Ready, _, _) => return ready(found),
            (Standing::Elsewhere, _, _) => return failed(FailureReason::RuntimeUnavailable, ELSEWHERE),
            (_, Some(trouble), _) => return failed(FailureReason::RuntimeUnavailable, trouble),
            // The runtime is restarting, perhaps. What it had a moment ago, it has.
            (Standing::Unknown, None, _) if engine.ready.contains(key) => return ready(found),
            (Standing::Unknown | Standing::Missing, None, Some(failure)) => return of_failure(failure),
            (Standing::Unknown | Standing::Missing, None, None) => {
                return State::Delivering { digest: found.digest.clone(), size: found.size };
            }
            (Standing::Moved(_), None, _) => {}
        }
    }
    let progress = image.pull.as_ref().map(|pull| &pull.progress);
    match (progress, &image.failure) {
        // A new try replaces the last one's failure once it has got further than that one.
        (Some(progress), failure) if progress.has_begun() && (progress.total() > 0 || failure.is_none()) => {
            State::Pulling { present: progress.present(), total: progress.total() }
        }
        (_, Some(failure)) => of_failure(failure),
        (None, None) if away.is_some() => failed(FailureReason::RuntimeUnavailable, away.unwrap_or_default()),
        (_, None) => State::Pending,
    }
}

fn ready(found: &Found) -> State {
    State::Ready { digest: found.digest.clone(), size: found.size }
}

/// What uses an image, and how that ends.
fn describe_users(users: &[User]) -> String {
    let Some(first) = users.iter().min_by_key(|user| (!user.running, *user)) else { return String::new() };
    let name: String = first.container.chars().take(64).collect();
    let state = if first.running { "running" } else { "stopped" };
    let one = match &first.pod {
        Some(pod) => format!("container {name} of pod {}/{} ({state})", pod.namespace, pod.name),
        None => format!("container {name} ({state}), which belongs to no pod"),
    };
    match users.len() {
        1 => format!("used by {one}; it goes once the container is gone"),
        count => format!("used by {count} containers, such as {one}; it goes once they are gone"),
    }
}

#[cfg(test)]
mod tests {
    use larder_runtime::Pod;

    use super::*;

    fn user(pod: Option<&str>, container: &str, running: bool) -> User {
        let pod = pod.map(|name| Pod { namespace: "shop".to_owned(), name: name.to_owned() });
        User { pod, container: container.to_owned(), id: format!("id-{container}"), running }
    }

    #[test]
    fn users_are_named() {
        let web = user(Some("web-7d4"), "web", true);
        assert_eq!(
            describe_users(std::slice::from_ref(&web)),
            "used by container web of pod shop/web-7d4 (running); it goes once the container is gone"
        );
        assert_eq!(
            describe_users(&[user(Some("a"), "init", false), web]),
            "used by 2 containers, such as container web of pod shop/web-7d4 (running); it goes once they are gone"
        );
        assert_eq!(
            describe_users(&[user(None, "by-hand", false)]),
            "used by container by-hand (stopped), which belongs to no pod; it goes once the container is gone"
        );
    }
}
