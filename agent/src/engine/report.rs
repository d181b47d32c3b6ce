//! What the engine says about the images.

use k8s_openapi::jiff::Timestamp;
use larder_crds::FailureReason;
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
    /// It is there, every byte verified, in the runtime too where there is one.
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
}

pub(super) fn report(engine: &Engine) -> Report {
    let now = Instant::now();
    let wanted = engine.desired.images.iter().map(|wanted| ImageReport {
        image: wanted.image.clone(),
        platform: wanted.platform.clone(),
        state: match (&engine.trouble, &wanted.key) {
            (Some(trouble), _) => failed(FailureReason::StoreError, trouble),
            (None, Err(unreadable)) => failed(FailureReason::InvalidReference, unreadable),
            (None, Ok(key)) => state(engine, key, now),
        },
    });
    let in_use =
        engine.kept.iter().filter(|(_, kept)| !kept.users.is_empty()).map(|(key, kept)| ImageReport {
            image: key.name.to_string(),
            platform: (key.platform != Platform::host()).then(|| key.platform.to_string()),
            state: State::InUse { message: describe_users(&kept.users) },
        });
    Report {
        generation: engine.desired.generation,
        images: wanted.chain(in_use).collect(),
        runtime: engine.link.description().cloned(),
    }
}

fn failed(reason: FailureReason, message: &str) -> State {
    State::Failed { reason, message: message.to_owned(), retry_time: None }
}

fn of_failure(failure: &Failure) -> State {
    let Failure { reason, message, retry_time, .. } = failure.clone();
    State::Failed { reason, message, retry_time: Some(retry_time) }
}

fn state(engine: &Engine, key: &ImageKey, now: Instant) -> State {
    let Some(image) = engine.images.get(key) else { return State::Pending };
    let away = engine.link.trouble(now).filter(|_| engine.link.takes(key));
    if let Some(found) = engine.observed.complete(key) {
        match (&found.standing, away, &image.delivery_failure) {
            // An image that is there stays ready while its tag is looked up again, and when that fails.
            (Standing::NotNeeded | Standing::Ready, _, _) => return ready(found),
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
