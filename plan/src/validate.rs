//! From an `ImageCacheSpec`, which anybody may have written, to a [`ValidCache`], from which planning cannot fail.
//!
//! The API server's schema rules out nearly all of this. It is checked again since a definition of another version
//! may be installed, and since a label selector has no schema rules of its own.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Selector, SelectorExt as _};
use larder_crds::{
    CachedImage, DeferredImage, DeletionPolicy, DiskReserve, ImageCacheSpec, NodeImage, ReleasedImage,
    RemovalRule,
};
use larder_oci::{ImageName, Platform};

use crate::{
    AllowList, removal,
    rollout::{Concurrency, Pace},
    selector,
    settings::{self, Common},
};

/// Which image, on a node: a canonical name, and a platform where it is not to be the node's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The canonical name.
    pub image: String,
    /// The platform, normalised. Absent: the node's own.
    pub platform: Option<String>,
}

impl From<&NodeImage> for Target {
    fn from(image: &NodeImage) -> Self {
        Self { image: image.image.clone(), platform: image.platform.clone() }
    }
}

impl From<&ReleasedImage> for Target {
    fn from(image: &ReleasedImage) -> Self {
        Self { image: image.image.clone(), platform: image.platform.clone() }
    }
}

impl From<&DeferredImage> for Target {
    fn from(image: &DeferredImage) -> Self {
        Self { image: image.image.clone(), platform: image.platform.clone() }
    }
}

impl From<Target> for DeferredImage {
    fn from(target: Target) -> Self {
        Self { image: target.image, platform: target.platform, tags: Vec::new() }
    }
}

impl From<Target> for ReleasedImage {
    fn from(target: Target) -> Self {
        Self { image: target.image, platform: target.platform, tags: Vec::new() }
    }
}

/// An image that a cache wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedImage {
    /// Which image.
    pub target: Target,
    /// Its name as the specification spells it.
    pub spelled: String,
    /// What is wanted of it: the entry that a node gets for it, without a claim.
    pub entry: NodeImage,
}

/// A specification that has been checked. There is no other way to make one than [`ValidCache::new`].
#[derive(Debug, Clone, PartialEq)]
pub struct ValidCache {
    selector: Option<Selector>,
    images: Vec<WantedImage>,
    deletion_policy: DeletionPolicy,
    pace: Pace,
    removals: Vec<RemovalRule>,
    disk_reserve: Option<DiskReserve>,
    max_concurrent_downloads: Option<i32>,
    pull_secrets: Vec<String>,
}

/// One thing that is wrong with a specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `spec.images[2].image`.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

/// Problems as one message; the first three, and how many more there are.
#[must_use]
pub fn describe(problems: &[Problem]) -> String {
    let shown: Vec<String> = problems.iter().take(3).map(ToString::to_string).collect();
    let more = problems.len().saturating_sub(shown.len());
    let rest = if more == 0 { String::new() } else { format!("; and {more} more") };
    format!("{}{rest}", shown.join("; "))
}

impl ValidCache {
    /// Checks a specification, whatever registries it names.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of its fields.
    pub fn new(spec: &ImageCacheSpec) -> Result<Self, Vec<Problem>> {
        Self::within(spec, &AllowList::default())
    }

    /// Checks a specification where names of images have to be on a list.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of its fields.
    pub fn within(spec: &ImageCacheSpec, allowed: &AllowList) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let selector = spec.node_selector.as_ref().and_then(|given| selector::read(given, &mut problems));
        let common = Common::read(spec, &mut problems);
        let images = read_images(&spec.images, &common, &mut problems);
        allowed.check(&images, &mut problems);
        let removals = removal::read(&spec.remove, &images, &mut problems);
        let disk_reserve =
            spec.disk_reserve.as_deref().and_then(|text| settings::disk_reserve(text, &mut problems));
        let limit = spec.rollout.as_ref().and_then(|rollout| rollout.max_concurrent_nodes.as_ref());
        let limit = limit.and_then(|given| concurrency(given, &mut problems));
        let pace = match limit {
            _ if spec.paused => Pace::Paused,
            Some(limit) => Pace::Limited(limit),
            None => Pace::AllAtOnce,
        };
        if problems.is_empty() {
            Ok(Self {
                selector,
                images,
                deletion_policy: spec.deletion_policy,
                pace,
                removals,
                disk_reserve,
                max_concurrent_downloads: spec.max_concurrent_downloads.filter(|&limit| limit > 0),
                pull_secrets: common.pull_secrets,
            })
        } else {
            Err(problems)
        }
    }

    /// The images, each once, in the specification's order.
    #[must_use]
    pub fn images(&self) -> &[WantedImage] {
        &self.images
    }

    /// What is to happen when the cache is deleted.
    #[must_use]
    pub fn deletion_policy(&self) -> DeletionPolicy {
        self.deletion_policy
    }

    /// What is to go from the nodes: names canonical, patterns as they are written.
    pub(crate) fn removals(&self) -> &[RemovalRule] {
        &self.removals
    }

    /// The free space that fetching an image must leave.
    pub(crate) fn disk_reserve(&self) -> Option<DiskReserve> {
        self.disk_reserve
    }

    /// How many images a node may fetch at a time.
    pub(crate) fn max_concurrent_downloads(&self) -> Option<i32> {
        self.max_concurrent_downloads
    }

    /// The Secrets whose logins fetch the images, in order.
    pub(crate) fn pull_secrets(&self) -> &[String] {
        &self.pull_secrets
    }

    /// How fast changes reach the nodes.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Whether nodes are chosen by their labels, and not by the agent that they run.
    #[must_use]
    pub fn has_selector(&self) -> bool {
        self.selector.is_some()
    }

    /// Whether a node with these labels is to hold the images.
    ///
    /// Without a selector that is every node. A node without an agent is told too: nobody acts on it there, and an
    /// agent that comes, or comes back after its `NodeImageCache` was lost, never sees an empty list first.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.as_ref().is_none_or(|selector| selector.matches(labels))
    }

    /// Whether it wants this image.
    #[must_use]
    pub fn wants(&self, target: &Target) -> bool {
        self.wish(target).is_some()
    }

    /// What it wants of this image.
    pub(crate) fn wish(&self, target: &Target) -> Option<&WantedImage> {
        self.images.iter().find(|image| image.target == *target)
    }
}

fn concurrency(given: &IntOrString, problems: &mut Vec<Problem>) -> Option<Concurrency> {
    let read = match given {
        IntOrString::Int(number) => usize::try_from(*number).ok().filter(|&n| n > 0).map(Concurrency::Nodes),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
            let percent = percent.and_then(|digits| digits.parse::<u8>().ok());
            percent.filter(|percent| (1..=100).contains(percent)).map(Concurrency::Percent)
        }
    };
    if read.is_none() {
        let shown = match given {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(text) => format!("{:?}", cut(text)),
        };
        problems.push(Problem {
            field: "spec.rollout.maxConcurrentNodes".to_owned(),
            message: format!(
                "{shown} is neither a number of at least 1 nor a percentage from 1% to 100%, such as 20%"
            ),
        });
    }
    read
}

/// Each image once, with names and files that no other has.
fn read_images(images: &[CachedImage], common: &Common, problems: &mut Vec<Problem>) -> Vec<WantedImage> {
    let mut wanted: Vec<WantedImage> = Vec::with_capacity(images.len());
    let mut places: BTreeMap<Target, usize> = BTreeMap::new();
    for (number, image) in images.iter().enumerate() {
        let Some(target) = target(image, number, problems) else { continue };
        match places.entry(target) {
            Entry::Occupied(place) => problems.push(Problem {
                field: format!("spec.images[{number}].image"),
                message: format!(
                    "{:?} is the same image as spec.images[{}] ({:?}), {}: name it once",
                    cut(&image.image),
                    place.get(),
                    cut(&images[*place.get()].image),
                    place.key().image,
                ),
            }),
            Entry::Vacant(place) => {
                let target = place.key().clone();
                place.insert(number);
                let entry = settings::entry(image, &target, number, common, problems);
                wanted.push(WantedImage { target, spelled: image.image.clone(), entry });
            }
        }
    }
    report_clashes(&wanted, problems);
    wanted
}

/// A name, and a file, is one image's.
fn report_clashes(wanted: &[WantedImage], problems: &mut Vec<Problem>) {
    let mut names: BTreeMap<&str, &str> =
        wanted.iter().map(|image| (image.target.image.as_str(), image.spelled.as_str())).collect();
    let mut files: BTreeMap<&str, &str> = BTreeMap::new();
    for image in wanted {
        let field = |name: &str| format!("spec.images[{}].{name}", image.entry.position);
        for tag in &image.entry.tags {
            if let Some(other) = names.insert(tag, &image.spelled) {
                let message = format!("{tag} is the name of {other:?} already: a name is one image's");
                problems.push(Problem { field: field("tags"), message });
            }
        }
        for file in &image.entry.save {
            if let Some(other) = files.insert(file, &image.spelled) {
                let message = format!("{file} holds {other:?} already: a file holds one image");
                problems.push(Problem { field: field("save.file"), message });
            }
        }
    }
}

fn target(image: &CachedImage, number: usize, problems: &mut Vec<Problem>) -> Option<Target> {
    let mut report = |field: &str, message: String| {
        problems.push(Problem { field: format!("spec.images[{number}].{field}"), message });
    };
    let name = image.image.parse::<ImageName>().map_err(|error| report("image", error.to_string())).ok();
    let platform = image.platform.as_deref().map(str::parse::<Platform>).transpose();
    let platform = platform.map_err(|error| report("platform", error.to_string())).ok();
    Some(Target { image: name?.to_string(), platform: platform?.map(|platform| platform.to_string()) })
}

/// Texts of any length are quoted in part: a status message is for a person.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

    use larder_crds::PullPolicy;

    use super::*;

    fn image(name: &str, platform: Option<&str>, pull_policy: PullPolicy) -> CachedImage {
        CachedImage {
            image: name.to_owned(),
            pull_policy,
            platform: platform.map(str::to_owned),
            ..Default::default()
        }
    }

    fn problems(images: Vec<CachedImage>) -> String {
        let spec = ImageCacheSpec { images, ..Default::default() };
        ValidCache::new(&spec).err().map(|problems| describe(&problems)).unwrap_or_default()
    }

    #[test]
    fn an_image_is_named_once_whatever_its_spelling() {
        let (first, second) = ("ubuntu", "docker.io/library/ubuntu:latest");
        let policy = PullPolicy::IfNotPresent;
        assert_eq!(
            problems(vec![image(first, None, policy), image(second, None, policy)]),
            "spec.images[1].image: \"docker.io/library/ubuntu:latest\" is the same image as spec.images[0] \
             (\"ubuntu\"), docker.io/library/ubuntu:latest: name it once"
        );
        assert_eq!(
            problems(vec![image(first, None, policy), image(second, Some("linux/aarch64"), policy)]),
            "",
            "for another platform it is another image"
        );
    }

    #[test]
    fn names_and_files_are_one_images() {
        let with = |name: &str, tags: &[&str], file: Option<&str>| CachedImage {
            image: name.to_owned(),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            save: file.map(|file| larder_crds::Archive { file: file.to_owned() }),
            ..Default::default()
        };
        assert_eq!(problems(vec![with("a", &["b:1", "b:1"], Some("a.tar")), with("c", &["b:2"], None)]), "");
        for (images, expected) in [
            (
                vec![with("a", &["b"], None), with("b", &[], None)],
                "library/b:latest is the name of \"b\" already",
            ),
            (vec![with("a", &["a:latest"], None)], "library/a:latest is the name of \"a\" already"),
            (
                vec![with("a", &["x"], None), with("b", &["x"], None)],
                "library/x:latest is the name of \"a\" already",
            ),
            (vec![with("a", &[], Some("x.tar")), with("b", &[], Some("x.tar"))], "x.tar holds \"a\" already"),
            (vec![with("a", &[], Some("../x.tar"))], "spec.images[0].save.file: \"../x.tar\" is no name"),
            (vec![with("a", &[], Some("x.zip"))], "spec.images[0].save.file: \"x.zip\" is no name"),
            (vec![with("a", &["B"], None)], "spec.images[0].tags[0]: invalid image name"),
        ] {
            let problems = problems(images);
            assert!(problems.contains(expected), "{problems}");
        }
    }

    #[test]
    fn every_problem_names_its_field() {
        let requirement = LabelSelectorRequirement {
            key: "pool".to_owned(),
            operator: "Is".to_owned(),
            values: Some(vec!["web".to_owned()]),
        };
        let node_selector = LabelSelector { match_expressions: Some(vec![requirement]), match_labels: None };
        let mut spec = ImageCacheSpec { node_selector: Some(node_selector), ..Default::default() };
        spec.images =
            vec![image("Ubuntu", Some("linux"), PullPolicy::Always), image("ok", None, PullPolicy::Always)];
        let problems = ValidCache::new(&spec).unwrap_err();
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.nodeSelector.matchExpressions[0].operator",
                "spec.images[0].image",
                "spec.images[0].platform"
            ]
        );
        assert!(describe(&problems).contains("spec.images[0].image: invalid image name \"Ubuntu\""));
    }

    #[test]
    fn a_limit_is_a_number_or_a_percentage_and_pausing_comes_first() {
        use IntOrString::{Int, String};
        let pace = |limit: IntOrString, paused| {
            let rollout = Some(larder_crds::Rollout { max_concurrent_nodes: Some(limit) });
            let valid = ValidCache::new(&ImageCacheSpec { rollout, paused, ..Default::default() });
            valid.map(|valid| valid.pace()).map_err(|problems| describe(&problems))
        };
        let nodes = |limit, selected| match pace(limit, false) {
            Ok(Pace::Limited(limit)) => limit.of(selected),
            other => panic!("{other:?}"),
        };
        for (limit, selected, expected) in [
            (Int(3), 100, 3),
            (Int(3), 0, 3),
            (String("20%".to_owned()), 11, 3),
            (String("1%".to_owned()), 99, 1),
            (String("1%".to_owned()), 0, 1),
            (String("100%".to_owned()), 7, 7),
        ] {
            assert_eq!(nodes(limit.clone(), selected), expected, "{limit:?} of {selected}");
        }
        assert_eq!(pace(Int(3), true), Ok(Pace::Paused));
        assert_eq!(ValidCache::new(&ImageCacheSpec::default()).unwrap().pace(), Pace::AllAtOnce);
        let texts = ["0%", "101%", "20", "", "%", "-5%", "+5%", "2.5%", "20 %"];
        let texts = texts.map(|text| String(text.to_owned()));
        for wrong in [Int(0), Int(-1)].into_iter().chain(texts) {
            let message = pace(wrong.clone(), false).unwrap_err();
            assert!(message.starts_with("spec.rollout.maxConcurrentNodes: "), "{wrong:?}: {message}");
        }
    }

    #[test]
    fn many_problems_make_a_short_message() {
        let spec = ImageCacheSpec {
            images: (0..256).map(|_| image(&"A".repeat(400), None, PullPolicy::Always)).collect(),
            ..Default::default()
        };
        let message = describe(&ValidCache::new(&spec).unwrap_err());
        assert!(message.ends_with("; and 253 more") && message.len() < 2_000, "{message}");
    }
}
