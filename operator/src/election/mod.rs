//! Leader election over a Lease, by client-go's rules and with its times.
//!
//! Of our own: kube has none, and kube-lease-manager 0.13 goes on believing that it leads while the API server cannot be
//! reached, compares the clocks of different nodes, and frees an expired Lease without looking at its resource version,
//! so that two candidates can both take it. Here every write of the Lease names the version that it replaces.

mod fence;
mod record;

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::Instant;

pub(crate) use self::fence::Fence;
use self::record::{Claim, Seen};
use crate::{
    apply::Category,
    explain,
    health::Pulse,
    metrics::{Metrics, WriteKind},
};

/// The name of the Lease.
pub const LEASE_NAME: &str = "larder-operator";

/// A leader that could not renew for so long writes no more. Others wait for five seconds longer: a request that was
/// sent at the last moment is answered, or cut off, by then.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often the Lease is renewed by who has it, and looked at by who has not.
const RETRY: Duration = Duration::from_secs(2);
/// A request for the Lease that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where the Lease is, and who wants it.
#[derive(Debug, Clone)]
pub struct ElectionOptions {
    /// The Lease's namespace.
    pub namespace: String,
    /// This process' name, different from that of every other replica.
    pub identity: String,
}

/// The end of a term that was not given up.
#[derive(Debug, thiserror::Error)]
pub enum LeaseLost {
    /// No renewal got through in time.
    #[error(
        "the Lease {namespace}/{LEASE_NAME} could not be renewed within {} seconds ({why}); another replica may lead \
         now, and this process has to be started anew",
        RENEW_DEADLINE.as_secs()
    )]
    NotRenewed {
        /// The Lease's namespace.
        namespace: String,
        /// The last failure.
        why: String,
    },
    /// Somebody else has the Lease.
    #[error("the Lease {namespace}/{LEASE_NAME} was taken by {holder}; this process has to be started anew")]
    Taken {
        /// The Lease's namespace.
        namespace: String,
        /// Who has it.
        holder: String,
    },
}

/// One candidate.
pub(crate) struct Elector {
    api: Api<Lease>,
    options: ElectionOptions,
    fence: Fence,
    metrics: Metrics,
    /// Beats at every attempt.
    pulse: Pulse,
    seen: Option<Seen>,
}

#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("{}", explain(.0))]
    Client(#[from] kube::Error),
    #[error("no answer from the API server within {} seconds", TIMEOUT.as_secs())]
    Timeout,
}

impl AttemptError {
    /// Somebody wrote the Lease meanwhile: the next attempt looks at it afresh.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Client(kube::Error::Api(status)) if status.code == 409)
    }
}

/// How an attempt to take or renew the Lease ended.
enum Attempt {
    Ours,
    Held(String),
    /// Somebody wrote it meanwhile.
    Conflict,
}

impl Elector {
    pub fn new(
        client: Client,
        options: ElectionOptions,
        fence: Fence,
        metrics: Metrics,
        pulse: Pulse,
    ) -> Self {
        let api = Api::namespaced(client, &options.namespace);
        Self { api, options, fence, metrics, pulse, seen: None }
    }

    /// Returns once this process leads. The fence is open then.
    pub async fn campaign(&mut self) {
        let mut holder = String::new();
        loop {
            match self.attempt().await {
                Ok(Attempt::Ours) => return,
                Ok(Attempt::Held(by)) if by != holder => {
                    tracing::info!(leader = by, "standing by");
                    holder = by;
                }
                Ok(Attempt::Held(_) | Attempt::Conflict) => {}
                Err(error) => tracing::warn!("{}; trying again", self.about(&error)),
            }
            tokio::time::sleep(jittered(RETRY)).await;
        }
    }

    /// Renews the Lease for as long as that works.
    pub async fn hold(&mut self) -> LeaseLost {
        let namespace = self.options.namespace.clone();
        let mut why = "the API server did not answer".to_owned();
        loop {
            let fence = self.fence.clone();
            let attempt = async {
                tokio::time::sleep(RETRY).await;
                self.attempt().await
            };
            tokio::select! {
                biased;
                () = fence.wait_closed() => return LeaseLost::NotRenewed { namespace, why },
                attempt = attempt => match attempt {
                    Ok(Attempt::Ours) => {}
                    Ok(Attempt::Held(holder)) => return LeaseLost::Taken { namespace, holder },
                    Ok(Attempt::Conflict) => "somebody else wrote it".clone_into(&mut why),
                    Err(error) => {
                        tracing::warn!("{}; trying again", self.about(&error));
                        why = error.to_string();
                    }
                }
            }
        }
    }

    /// Gives the Lease up. The fence is closed first: whoever takes over may start at once.
    pub async fn release(self) {
        self.fence.close();
        // A renewal may be under way that nobody waits for any more: it wins, or it is refused as out of date.
        for _ in 0..3 {
            match self.try_release().await {
                Ok(()) => return,
                Err(error) if error.is_conflict() => {}
                Err(error) => return tracing::warn!("giving up the {}", self.about(&error)),
            }
        }
    }

    async fn try_release(&self) -> Result<(), AttemptError> {
        let Some(lease) = answer(self.api.get_opt(LEASE_NAME)).await? else { return Ok(()) };
        if Seen::new(lease.clone(), None, Instant::now()).claim(&self.options.identity, Instant::now())
            == Claim::Ours
        {
            let spec = record::given_up(&lease, Timestamp::now());
            self.write(Some(lease), spec).await?;
            tracing::info!("Lease given up");
        }
        Ok(())
    }

    /// One try to take the Lease, or to renew it.
    async fn attempt(&mut self) -> Result<Attempt, AttemptError> {
        self.pulse.beat();
        // A term counts from before the request: nobody can have seen its renewal earlier.
        let start = Instant::now();
        // Who holds the Lease knows its version, and needs no look at it first.
        if self.claim(start) != Some(Claim::Ours) {
            let lease = answer(self.api.get_opt(LEASE_NAME)).await?;
            let earlier = self.seen.take();
            self.seen = lease.map(|lease| Seen::new(lease, earlier, Instant::now()));
            if let Some(Claim::Held(holder)) = self.claim(Instant::now()) {
                return Ok(Attempt::Held(holder.to_owned()));
            }
        }
        let previous = self.seen.as_ref().map(|seen| seen.lease.clone());
        let spec = record::held_by(&self.options.identity, previous.as_ref(), Timestamp::now());
        match self.write(previous, spec).await {
            Ok(lease) => {
                self.seen = Some(Seen::new(lease, None, start));
                self.fence.extend(start + RENEW_DEADLINE);
                Ok(Attempt::Ours)
            }
            Err(error) => {
                // Also what failed may have got through. How long another's Lease has not changed is not forgotten.
                if self.claim(start) == Some(Claim::Ours) {
                    self.seen = None;
                }
                if error.is_conflict() { Ok(Attempt::Conflict) } else { Err(error) }
            }
        }
    }

    fn claim(&self, now: Instant) -> Option<Claim<'_>> {
        self.seen.as_ref().map(|seen| seen.claim(&self.options.identity, now))
    }

    /// Replaces the Lease in the version given, or creates it.
    async fn write(&self, previous: Option<Lease>, spec: LeaseSpec) -> Result<Lease, AttemptError> {
        let parameters = PostParams::default();
        let written = if let Some(previous) = previous {
            let lease = Lease { spec: Some(spec), ..previous };
            answer(self.api.replace(LEASE_NAME, &parameters, &lease)).await
        } else {
            let metadata = ObjectMeta { name: Some(LEASE_NAME.to_owned()), ..Default::default() };
            let lease = Lease { metadata, spec: Some(spec) };
            answer(self.api.create(&parameters, &lease)).await
        };
        self.count(&written);
        written
    }

    fn count(&self, written: &Result<Lease, AttemptError>) {
        let outcome = match written {
            Ok(_) => Ok(()),
            Err(AttemptError::Client(error)) => Err(Category::of(error)),
            Err(AttemptError::Timeout) => Err(Category::Unavailable),
        };
        self.metrics.count_write(WriteKind::Lease, outcome);
    }

    fn about(&self, error: &AttemptError) -> String {
        format!("Lease {}/{LEASE_NAME}: {error}", self.options.namespace)
    }
}

async fn answer<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, AttemptError> {
    tokio::time::timeout(TIMEOUT, request)
        .await
        .map_err(|_| AttemptError::Timeout)?
        .map_err(AttemptError::Client)
}

/// Replicas that were started together do not stay in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + 0.2 * fastrand::f64())
}
