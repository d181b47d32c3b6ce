//! All images that a runtime lists through CRI, and taking names from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use larder_oci::{Digest, ImageName};

use super::Cri;
use crate::{
    Listed, Removal, RuntimeError,
    api::cri::{self, ImageSpec, ImageStatusRequest, RemoveImageRequest},
    listed::{Traces, canonical, leaving},
    socket::answer,
    users::{self, digest_of},
};

/// When images were made, by their IDs, as asked before.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<BTreeMap<String, Option<Timestamp>>>);

impl Cri {
    /// All images: see [`crate::Runtime::images`]. An image whose ID is no digest can't be told from others and is left out.
    pub(crate) async fn images(&self) -> Result<Vec<Listed>, RuntimeError> {
        let found = self.list_images().await?;
        self.known.retain(&found);
        let mut images = Vec::with_capacity(found.len());
        for image in &found {
            if let Some(id) = digest_of(&image.id) {
                images.push(listed(id, image, self.created(&image.id).await?));
            }
        }
        Ok(images)
    }

    /// Takes names from an image: see [`crate::Runtime::remove`].
    ///
    /// CRI-O takes a name away; all others take the image, whichever name they are given
    /// (<https://github.com/containerd/containerd/blob/v2.2.1/internal/cri/server/images/image_remove.go>). There it stays
    /// while a name is to stay.
    pub(crate) async fn remove(
        &self,
        id: &Digest,
        names: &BTreeSet<ImageName>,
    ) -> Result<Removal, RuntimeError> {
        let found = self.list_images().await?;
        let Some(image) = found.iter().find(|image| digest_of(&image.id).as_ref() == Some(id)) else {
            return Ok(Removal::Gone);
        };
        let written = || image.repo_tags.iter().chain(&image.repo_digests);
        let all: Vec<ImageName> = written().filter_map(|name| canonical(name)).collect();
        let going = leaving(&all, names);
        if going.is_empty() {
            return Ok(Removal::Gone);
        }
        if image.pinned {
            return Ok(Removal::Stays);
        }
        let users = users::over_cri(self).await?.using(&listed(id.clone(), image, None));
        if !users.is_empty() {
            return Ok(Removal::InUse(users));
        }
        if going.len() == written().count() {
            self.remove_image(&image.id).await?;
        } else if self.is_cri_o().await? {
            for name in going {
                self.remove_image(name.as_str()).await?;
            }
        } else {
            return Ok(Removal::Stays);
        }
        Ok(Removal::Gone)
    }

    async fn remove_image(&self, name: &str) -> Result<(), RuntimeError> {
        let what = format!("remove image {name}");
        let spec = ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
        let mut client = self.image_service();
        let call = client.remove_image(RemoveImageRequest { image: Some(spec) });
        answer(&self.endpoint, &what, call).await.map(drop)
    }

    /// When an image was made: what the runtime tells beside its status, as containerd and CRI-O do.
    async fn created(&self, id: &str) -> Result<Option<Timestamp>, RuntimeError> {
        if let Some(known) = self.known.all().get(id) {
            return Ok(*known);
        }
        let spec = ImageSpec { image: id.to_owned(), ..ImageSpec::default() };
        let mut client = self.image_service();
        let call = client.image_status(ImageStatusRequest { image: Some(spec), verbose: true });
        let status = answer(&self.endpoint, "say what an image is", call).await?;
        let created = status.info.get("info").and_then(|info| created(info));
        self.known.all().insert(id.to_owned(), created);
        Ok(created)
    }
}

impl Known {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Option<Timestamp>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retain(&self, images: &[cri::Image]) {
        let ids: BTreeSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        self.all().retain(|id, _| ids.contains(id.as_str()));
    }
}

fn created(info: &str) -> Option<Timestamp> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Info {
        image_spec: Spec,
    }
    #[derive(serde::Deserialize)]
    struct Spec {
        created: String,
    }
    let info: Info = serde_json::from_str(info).ok()?;
    info.image_spec.created.parse().ok()
}

fn listed(id: Digest, image: &cri::Image, created: Option<Timestamp>) -> Listed {
    let digests = image.repo_digests.iter().filter_map(|name| digest_of(name)).chain([id.clone()]);
    let traces = Traces { digests: digests.collect(), chains: BTreeSet::new() };
    let names =
        image.repo_tags.iter().chain(&image.repo_digests).filter_map(|name| canonical(name)).collect();
    Listed { id, names, created, came: None, is_pinned: image.pinned, is_marked: false, traces }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::digest;

    #[test]
    fn what_runtimes_tell_of_an_image() {
        let info = r#"{"chainID":"sha256:1","imageSpec":{"created":"2026-01-01T00:00:00.5Z","architecture":"amd64"}}"#;
        assert_eq!(created(info), "2026-01-01T00:00:00.5Z".parse().ok());
        assert_eq!(created("{}"), None);
        let by_digest = format!("quay.io/app@{}", digest(2));
        let image = cri::Image {
            id: digest(1).hex().to_owned(),
            repo_tags: vec!["docker.io/library/app:v1".to_owned(), "<none>".to_owned()],
            repo_digests: vec![by_digest.clone()],
            pinned: true,
            ..cri::Image::default()
        };
        let listed = listed(digest_of(&image.id).unwrap(), &image, None);
        let names: Vec<_> = listed.names.iter().map(ImageName::as_str).collect();
        assert_eq!(names, ["docker.io/library/app:v1", by_digest.as_str()]);
        assert!(listed.is_pinned && listed.traces.digests == BTreeSet::from([digest(1), digest(2)]));
    }
}
