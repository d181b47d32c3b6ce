//! Logins from the Secrets that `ImageCache`s name.
//!
//! A Secret is read when an image that names it has to be fetched, with the agent's own rights, and remembered for a minute;
//! it is read again at once when a registry refuses what it says. It is never written anywhere. While every image is there,
//! nobody asks for Secrets.
//!
//! # Which login
//!
//! Of the Secrets that the images of a repository name, the login counts whose key names most of the repository's path;
//! of several that name as much, that of the Secret whose name comes first. Where none of them has a login for the
//! registry, the node's own logins are asked next.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use larder_registry::{ConfigFile, Credential, Credentials, CredentialsError};
use tokio::time::{Instant, sleep, timeout};

use crate::engine::{PullSecrets, Repository};

/// How long what was read is taken for true.
const FRESH: Duration = Duration::from_secs(60);
/// How long it is kept for a time in which the API server does not answer.
const KEPT: Duration = Duration::from_secs(600);
/// How long the API server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a right may take to get through, from the operator's writing it to the API server's knowing it.
const GRACE: Duration = Duration::from_secs(8);
/// The pause between two tries within that time.
const PAUSE: Duration = Duration::from_millis(500);

/// The type of Secrets that hold logins.
const TYPE: &str = "kubernetes.io/dockerconfigjson";
/// Their one key.
const KEY: &str = ".dockerconfigjson";

/// The Secrets of one namespace, as far as this agent may read them.
pub struct ClusterSecrets {
    api: Api<Secret>,
    namespace: String,
    assigned: Mutex<BTreeMap<Repository, BTreeSet<String>>>,
    known: Mutex<BTreeMap<String, Place>>,
}

/// Where what is known of a Secret is kept. Locked while it is read: pulls that begin together read it once.
type Place = Arc<tokio::sync::Mutex<Option<Known>>>;

/// UID and resource version.
type Version = (Option<String>, Option<String>);

struct Known {
    logins: Arc<ConfigFile>,
    version: Version,
    read: Instant,
    /// A registry has refused what it says.
    is_doubted: bool,
}

impl fmt::Debug for ClusterSecrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClusterSecrets").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl ClusterSecrets {
    /// The Secrets of this namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            assigned: Mutex::default(),
            known: Mutex::default(),
        }
    }

    fn place(&self, name: &str) -> Place {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(name.to_owned()).or_default().clone()
    }

    /// The logins in a Secret, and whether they are others than at the last look.
    async fn logins(&self, name: &str) -> Result<(Arc<ConfigFile>, bool), CredentialsError> {
        let place = self.place(name);
        let mut known = place.lock().await;
        if let Some(known) = known.as_ref().filter(|known| !known.is_doubted && known.read.elapsed() < FRESH)
        {
            return Ok((known.logins.clone(), false));
        }
        match self.read_secret(name).await {
            Ok((logins, version)) => {
                let logins = Arc::new(logins);
                let has_changed = known.as_ref().is_some_and(|known| known.version != version);
                *known =
                    Some(Known { logins: logins.clone(), version, read: Instant::now(), is_doubted: false });
                Ok((logins, has_changed))
            }
            // What it said a moment ago is better than nothing.
            Err(error @ CredentialsError::Unavailable { is_passing: true, .. }) => match known.as_ref() {
                Some(known) if known.read.elapsed() < KEPT => {
                    tracing::debug!(secret = name, %error, "going on with the logins read last");
                    Ok((known.logins.clone(), false))
                }
                _ => Err(error),
            },
            Err(error) => {
                *known = None;
                Err(error)
            }
        }
    }

    async fn read_secret(&self, name: &str) -> Result<(ConfigFile, Version), CredentialsError> {
        let start = Instant::now();
        loop {
            let why = match timeout(TIMEOUT, self.api.get(name)).await {
                Ok(Ok(secret)) => return self.parse(name, &secret),
                Ok(Err(kube::Error::Api(status))) => match status.code {
                    404 => return Err(self.unusable(name, "is not there", "create it")),
                    // The node is told of an image at the same time as the API server is told of the right.
                    403 if start.elapsed() < GRACE => {
                        sleep(PAUSE).await;
                        continue;
                    }
                    403 => {
                        let why = format!(
                            "the agent may not read Secret {}/{name}; the operator lets it, by the Role \
                             larder-agent-pull-secrets there: {}",
                            self.namespace, status.message
                        );
                        return Err(CredentialsError::Unavailable { why, is_passing: false });
                    }
                    _ => status.message.clone(),
                },
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer from the API server within {} seconds", TIMEOUT.as_secs()),
            };
            let why = format!("Secret {}/{name} cannot be read now: {why}", self.namespace);
            return Err(CredentialsError::Unavailable { why, is_passing: true });
        }
    }

    fn parse(&self, name: &str, secret: &Secret) -> Result<(ConfigFile, Version), CredentialsError> {
        let kind = secret.type_.as_deref().unwrap_or("Opaque");
        if kind != TYPE {
            let what = format!("is of type {kind} and not {TYPE}");
            return Err(self.unusable(name, &what, "delete it, and create it anew"));
        }
        let bytes = secret.data.as_ref().and_then(|data| data.get(KEY)).map_or(&[][..], |bytes| &bytes.0);
        let label = format!("Secret {}/{name}", self.namespace);
        let read = ConfigFile::parse(Path::new(&label), bytes);
        let logins =
            read.and_then(|logins| logins.check().map(|()| logins)).map_err(|error| match error {
                CredentialsError::Malformed { why, .. } => {
                    self.unusable(name, &format!("holds no logins that can be used: {why}"), "create it anew")
                }
                other => other,
            })?;
        let version = (secret.metadata.uid.clone(), secret.metadata.resource_version.clone());
        Ok((logins, version))
    }

    fn unusable(&self, name: &str, what: &str, advice: &str) -> CredentialsError {
        let why = format!(
            "Secret {0}/{name} {what}; {advice}: kubectl create secret docker-registry {name} --namespace {0} \
             --docker-server=REGISTRY --docker-username=USER --docker-password=PASSWORD",
            self.namespace
        );
        CredentialsError::Unavailable { why, is_passing: false }
    }

    /// The Secrets to look into for a login. A host that no image names is a mirror's: those of all images of the
    /// repository may know it.
    fn names(&self, host: &str, repository: &str) -> BTreeSet<String> {
        let assigned = self.assigned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = assigned.get(&(host.to_owned(), repository.to_owned())) {
            return names.clone();
        }
        if assigned.keys().any(|(registry, _)| registry == host) {
            return BTreeSet::new();
        }
        let same = assigned.iter().filter(|((_, other), _)| other == repository);
        same.flat_map(|(_, names)| names).cloned().collect()
    }
}

impl Credentials for ClusterSecrets {
    fn find<'a>(
        &'a self,
        host: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>> {
        Box::pin(async move {
            let mut best: Option<(usize, Credential)> = None;
            for name in self.names(host, repository) {
                let (logins, _) = self.logins(&name).await?;
                if let Some(found) = logins.most_specific(host, repository)?
                    && best.as_ref().is_none_or(|(parts, _)| found.0 > *parts)
                {
                    best = Some(found);
                }
            }
            Ok(best.map(|(_, credential)| credential))
        })
    }
}

impl PullSecrets for ClusterSecrets {
    fn assign(&self, names: BTreeMap<Repository, BTreeSet<String>>) -> bool {
        let wanted: BTreeSet<&String> = names.values().flatten().collect();
        // What nobody names any more, or nobody has asked for in a while, is not kept in memory.
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, place| {
            let is_old = place
                .try_lock()
                .is_ok_and(|known| known.as_ref().is_some_and(|known| known.read.elapsed() >= KEPT));
            wanted.contains(name) && !is_old
        });
        let mut assigned = self.assigned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *assigned != names;
        *assigned = names;
        is_news
    }

    fn read<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<bool, CredentialsError>> {
        Box::pin(async move {
            let mut has_changed = false;
            for name in names {
                has_changed |= self.logins(name).await?.1;
            }
            Ok(has_changed)
        })
    }

    fn forget(&self, names: &[String]) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for place in names.iter().filter_map(|name| known.get(name)) {
            // Whoever has it locked is reading it anew.
            if let Ok(mut known) = place.try_lock()
                && let Some(known) = known.as_mut()
            {
                known.is_doubted = true;
            }
        }
    }
}
