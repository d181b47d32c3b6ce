//! From an `ImageCacheSpec`, which anybody may have written, to a [`ValidCache`], from which planning cannot fail.
//!
//! The API server's schema rules out nearly all of this. It is checked again since a definition of another version
//! may be installed, and since a label selector has no schema rules of its own.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString};
use kube::core::{Selector, SelectorExt as _};
use larder_crds::{
    CachedImage, DeferredImage, DeletionPolicy, ImageCacheSpec, NodeImage, PullPolicy, ReleasedImage,
};
use larder_oci::{ImageName, Platform};

use crate::rollout::{Concurrency, Pace};

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
        Self { image: target.image, platform: target.platform }
    }
}

impl From<Target> for ReleasedImage {
    fn from(target: Target) -> Self {
        Self { image: target.image, platform: target.platform }
    }
}

/// An image that a cache wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedImage {
    /// Which image.
    pub target: Target,
    /// Its name as the specification spells it, the first spelling where there are several.
    pub spelled: String,
    /// Whether its tag is looked up again.
    pub pull_policy: PullPolicy,
}

/// A specification that has been checked. There is no other way to make one than [`ValidCache::new`].
#[derive(Debug, Clone, PartialEq)]
pub struct ValidCache {
    selector: Option<Selector>,
    images: Vec<WantedImage>,
    deletion_policy: DeletionPolicy,
    pace: Pace,
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
    /// Checks a specification.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of its fields.
    pub fn new(spec: &ImageCacheSpec) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let selector = spec.node_selector.as_ref().and_then(|given| selector(given, &mut problems));
        let images = fold_images(&spec.images, &mut problems);
        let limit = spec.rollout.as_ref().and_then(|rollout| rollout.max_concurrent_nodes.as_ref());
        let limit = limit.and_then(|given| concurrency(given, &mut problems));
        let pace = match limit {
            _ if spec.paused => Pace::Paused,
            Some(limit) => Pace::Limited(limit),
            None => Pace::AllAtOnce,
        };
        if problems.is_empty() {
            Ok(Self { selector, images, deletion_policy: spec.deletion_policy, pace })
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

/// Two spellings of one image are one wish; the stronger pull policy wins.
fn fold_images(images: &[CachedImage], problems: &mut Vec<Problem>) -> Vec<WantedImage> {
    let mut wanted: Vec<WantedImage> = Vec::with_capacity(images.len());
    let mut places: BTreeMap<Target, usize> = BTreeMap::new();
    for (number, image) in images.iter().enumerate() {
        let Some(target) = target(image, number, problems) else { continue };
        match places.entry(target) {
            Entry::Occupied(place) => {
                let earlier = &mut wanted[*place.get()].pull_policy;
                *earlier = (*earlier).max(image.pull_policy);
            }
            Entry::Vacant(place) => {
                wanted.push(WantedImage {
                    target: place.key().clone(),
                    spelled: image.image.clone(),
                    pull_policy: image.pull_policy,
                });
                place.insert(wanted.len() - 1);
            }
        }
    }
    wanted
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

/// The rules of the API server's own `ValidateLabelSelector`, which it applies to built-in kinds only.
fn selector(given: &LabelSelector, problems: &mut Vec<Problem>) -> Option<Selector> {
    let before = problems.len();
    let mut report = |field: String, message: String| problems.push(Problem { field, message });
    for (key, value) in given.match_labels.iter().flatten() {
        let field = format!("spec.nodeSelector.matchLabels[{}]", cut(key));
        if !is_label_key(key) {
            report(field.clone(), format!("{:?} is no label key: {LABEL_KEY}", cut(key)));
        }
        if !is_label_value(value) {
            report(field, format!("{:?} is no label value: {LABEL_VALUE}", cut(value)));
        }
    }
    for (number, requirement) in given.match_expressions.iter().flatten().enumerate() {
        let field = format!("spec.nodeSelector.matchExpressions[{number}]");
        if !is_label_key(&requirement.key) {
            report(
                format!("{field}.key"),
                format!("{:?} is no label key: {LABEL_KEY}", cut(&requirement.key)),
            );
        }
        let values = requirement.values.as_deref().unwrap_or_default();
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                report(
                    format!("{field}.values"),
                    format!("{} needs at least one value", requirement.operator),
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                report(format!("{field}.values"), format!("{} takes no values", requirement.operator));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => report(
                format!("{field}.operator"),
                format!("{:?} is no operator: write In, NotIn, Exists or DoesNotExist", cut(other)),
            ),
        }
        if let Some(value) = values.iter().find(|value| !is_label_value(value)) {
            report(format!("{field}.values"), format!("{:?} is no label value: {LABEL_VALUE}", cut(value)));
        }
    }
    if problems.len() > before {
        return None;
    }
    match Selector::try_from(given.clone()) {
        Ok(selector) => Some(selector),
        Err(error) => {
            problems.push(Problem { field: "spec.nodeSelector".to_owned(), message: error.to_string() });
            None
        }
    }
}

const LABEL_KEY: &str = "write [prefix/]name, such as pool or example.com/pool";
const LABEL_VALUE: &str =
    "write at most 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends";

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_subdomain = |text: &str| {
        text.len() <= 253
            && text.split('.').all(|part| {
                let inner = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
                !part.is_empty() && inner && !part.starts_with('-') && !part.ends_with('-')
            })
    };
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    value.len() <= 63
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && ends(value.bytes().next())
        && ends(value.bytes().last())
}

/// Texts of any length are quoted in part: a status message is for a person.
fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;

    fn image(name: &str, platform: Option<&str>, pull_policy: PullPolicy) -> CachedImage {
        CachedImage { image: name.to_owned(), pull_policy, platform: platform.map(str::to_owned) }
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> ImageCacheSpec {
        let requirement = LabelSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: (!values.is_empty()).then(|| values.iter().map(|&value| value.to_owned()).collect()),
        };
        let node_selector = LabelSelector { match_expressions: Some(vec![requirement]), match_labels: None };
        ImageCacheSpec { node_selector: Some(node_selector), ..Default::default() }
    }

    #[test]
    fn two_spellings_are_one_image_and_always_wins() {
        let spec = ImageCacheSpec {
            images: vec![
                image("ubuntu", None, PullPolicy::IfNotPresent),
                image("docker.io/library/ubuntu:latest", None, PullPolicy::Always),
                image("index.docker.io/ubuntu:latest", Some("linux/aarch64"), PullPolicy::IfNotPresent),
            ],
            ..Default::default()
        };
        let valid = ValidCache::new(&spec).unwrap();
        let folded: Vec<_> = valid
            .images()
            .iter()
            .map(|image| (image.spelled.as_str(), image.target.platform.as_deref(), image.pull_policy))
            .collect();
        assert_eq!(
            folded,
            [
                ("ubuntu", None, PullPolicy::Always),
                ("index.docker.io/ubuntu:latest", Some("linux/arm64"), PullPolicy::IfNotPresent)
            ]
        );
    }

    #[test]
    fn every_problem_names_its_field() {
        let mut spec = expression("pool", "Is", &["web"]);
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
    fn selectors_follow_the_rules_of_built_in_kinds() {
        for (key, operator, values, field) in [
            ("pool", "In", &[] as &[&str], Some("values")),
            ("pool", "Exists", &["web"], Some("values")),
            ("pool", "in", &["web"], Some("operator")),
            ("po ol", "Exists", &[], Some("key")),
            ("Example.com/pool", "Exists", &[], Some("key")),
            ("pool", "In", &["-web"], Some("values")),
            ("example.com/pool", "In", &["web", ""], None),
            ("pool", "DoesNotExist", &[], None),
        ] {
            let found = ValidCache::new(&expression(key, operator, values)).err();
            let expected = field.map(|field| format!("spec.nodeSelector.matchExpressions[0].{field}"));
            assert_eq!(
                found.map(|problems| problems[0].field.clone()),
                expected,
                "{key} {operator} {values:?}"
            );
        }
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
