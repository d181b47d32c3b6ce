//! The Role that says which Secrets agents may read: those that `ImageCache`s name, and no other.
//!
//! The manifests install it without rules, and bind it to the agents' account; the operator keeps its rules. It holds no
//! right over Secrets itself. Writing rules that give what one does not have takes the verb `escalate`, which it has on
//! this one Role; an admission policy in the manifests keeps it to `get` on named Secrets.

use std::collections::BTreeSet;

use futures::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use larder_plan::{SecretsAction, index::Dirty, object::SecretsRoleObject};

use crate::{
    apply::ApplyError,
    explain,
    reconcile::{Context, Effect},
    watch::WatchEnded,
};

/// The Role's name.
pub(crate) const ROLE_NAME: &str = "larder-agent-pull-secrets";

/// A watch on the Role.
pub(crate) struct SecretsRoleWatch {
    namespace: String,
    events: BoxStream<'static, Result<Event<Role>, watcher::Error>>,
}

impl SecretsRoleWatch {
    /// On the Role in this namespace. Nothing is asked before it is followed.
    pub fn new(client: &Client, namespace: &str) -> Self {
        let config = watcher::Config::default().fields(&format!("metadata.name={ROLE_NAME}"));
        let events = watcher(Api::namespaced(client.clone(), namespace), config).default_backoff().boxed();
        Self { namespace: namespace.to_owned(), events }
    }

    /// Keeps the index up to date. It comes back only when the watch has ended.
    ///
    /// While the Role cannot be watched, all else goes on: an operator that was installed without the right keeps images on
    /// nodes as it did.
    pub async fn follow(mut self, context: &Context) -> WatchEnded {
        let mut is_listed = false;
        let mut trouble = None;
        loop {
            let object = match self.events.next().await {
                Some(Ok(Event::Init)) => {
                    context.index_mut().begin_secrets_role();
                    is_listed = false;
                    continue;
                }
                Some(Ok(Event::InitApply(role))) => {
                    is_listed = true;
                    Some(role)
                }
                Some(Ok(Event::Apply(role))) => Some(role),
                Some(Ok(Event::InitDone)) if is_listed => continue,
                Some(Ok(Event::InitDone | Event::Delete(_))) => None,
                Some(Err(error)) => {
                    self.tell(&error, &mut trouble);
                    continue;
                }
                None => return WatchEnded("the Role for pull secrets"),
            };
            trouble = None;
            let dirty: Dirty = context.index_mut().apply_secrets_role(object.map(seen));
            context.add(dirty);
        }
    }

    /// Says what is wrong, once for as long as it is the same.
    fn tell(&self, error: &watcher::Error, trouble: &mut Option<String>) {
        use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
        let (InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))) = error
        else {
            return tracing::debug!("watch on Role {}/{ROLE_NAME}: {}", self.namespace, explain(error));
        };
        if status.code != 403 {
            return tracing::debug!("watch on Role {}/{ROLE_NAME}: {}", self.namespace, status.message);
        }
        if trouble.as_ref() != Some(&status.message) {
            tracing::warn!(
                "the operator may not watch Role {}/{ROLE_NAME}, so that agents are not let read pullSecrets; install the \
                 operator's rights of this version: {}",
                self.namespace,
                status.message
            );
            *trouble = Some(status.message.clone());
        }
    }
}

/// What planning needs to know of the Role.
pub(crate) fn seen(role: Role) -> SecretsRoleObject {
    let names = names(role.rules.as_deref().unwrap_or_default());
    let uid = role.uid().unwrap_or_default();
    SecretsRoleObject { uid, resource_version: role.metadata.resource_version, names }
}

/// The Secrets that rules let read, if they are as [`rules`] writes them.
fn names(given: &[PolicyRule]) -> Option<BTreeSet<String>> {
    let listed = given.iter().filter_map(|rule| rule.resource_names.as_ref()).flatten();
    let names: BTreeSet<String> = listed.cloned().collect();
    (rules(&names) == given).then_some(names)
}

/// Rules that let read these Secrets, and nothing else. A rule without names would be one for all Secrets.
pub(crate) fn rules(names: &BTreeSet<String>) -> Vec<PolicyRule> {
    if names.is_empty() {
        return Vec::new();
    }
    vec![PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec!["secrets".to_owned()]),
        resource_names: Some(names.iter().cloned().collect()),
        verbs: vec!["get".to_owned()],
        ..PolicyRule::default()
    }]
}

/// Has the Role say what it should.
pub(crate) async fn reconcile(context: &Context) -> Result<Effect, ApplyError> {
    let action = context.index().plan_secrets();
    match action {
        None => Ok(Effect::Unchanged),
        Some(SecretsAction::Apply(names)) => {
            let applied = context.writer.secrets_role(&context.secrets_namespace, &names).await?;
            tracing::info!(secrets = names.len(), "agents may read the Secrets that ImageCaches name");
            let dirty = context.index_mut().apply_secrets_role(Some(applied));
            context.add(dirty);
            Ok(Effect::Written)
        }
        Some(SecretsAction::Missing(names)) => {
            tracing::warn!(
                secrets = names.len(),
                "there is no Role {}/{ROLE_NAME}, so that agents are not let read pullSecrets; install the manifests of \
                 this version",
                context.secrets_namespace
            );
            Ok(Effect::Unchanged)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(given: &[&str]) -> BTreeSet<String> {
        given.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn what_is_written_is_recognised_and_nothing_else_is() {
        for given in [set(&[]), set(&["regcred"]), set(&["b", "a"])] {
            assert_eq!(names(&rules(&given)), Some(given));
        }
        let mut wider = rules(&set(&["a"]));
        wider[0].verbs.push("list".to_owned());
        let mut nameless = rules(&set(&["a"]));
        nameless[0].resource_names = None;
        let mut backwards = rules(&set(&["a", "b"]));
        backwards[0].resource_names.as_mut().unwrap().reverse();
        let twice = [rules(&set(&["a"])), rules(&set(&["b"]))].concat();
        for other in [wider, nameless, backwards, twice] {
            assert_eq!(names(&other), None, "{other:?}");
        }
    }
}
