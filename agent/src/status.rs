//! The engine's report as the status of a `NodeImageCache`.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use larder_crds::{
    AgentInfo, ByteCount, ConditionReason, ConditionType, ImageState, NodeImageCacheStatus, NodeImageStatus,
    NodeStatusSummary, PullCount,
};
use larder_oci::Platform;
use larder_plan::condition::{self, Verdict};

use crate::engine::{ImageReport, Report, State};

/// The most images that the schema takes.
const MAX_IMAGES: usize = 4096;
/// The longest name of a runtime that the schema takes, in characters.
const MAX_RUNTIME: usize = 128;

/// This program, and the runtime that it gives images to, as a status names them.
#[must_use]
pub fn this_agent(runtime: Option<&str>) -> AgentInfo {
    AgentInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        platform: Platform::host().to_string(),
        runtime: runtime.map(|name| name.chars().take(MAX_RUNTIME).collect()),
    }
}

/// The status that says what `report` says, at `now`; transition times are carried over from `previous`.
#[must_use]
pub fn status(
    report: &Report,
    previous: Option<&NodeImageCacheStatus>,
    now: Timestamp,
) -> NodeImageCacheStatus {
    // Wanted images come first, and are not more.
    let images: Vec<_> = report.images.iter().take(MAX_IMAGES).map(image_status).collect();
    let count = |state| images.iter().filter(|image| image.state == state).count();
    let (ready, failed) = (count(ImageState::Ready), count(ImageState::Failed));
    let wanted = images.len() - count(ImageState::InUse);
    let bytes = ByteCount {
        total: images.iter().filter_map(|image| image.size).sum(),
        present: images.iter().filter_map(|image| image.bytes_present).sum(),
    };
    let done = ready == wanted;
    let (reason, message) = if done {
        let message = if wanted == 1 {
            "the image is here".to_owned()
        } else {
            format!("all {wanted} images are here")
        };
        (ConditionReason::AllImagesReady, message)
    } else if let Some(failure) = images.iter().find(|image| image.state == ImageState::Failed) {
        let message = failure.message.clone().unwrap_or_default();
        (ConditionReason::ImagesFailing, format!("{failed} of {wanted} images failed; {message}"))
    } else {
        (ConditionReason::ImagesProgressing, format!("{ready} of {wanted} images are here"))
    };
    let verdict = Verdict { kind: ConditionType::Ready, holds: done, reason, message };
    let before = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    NodeImageCacheStatus {
        observed_generation: report.generation,
        agent: Some(this_agent(report.runtime.as_deref())),
        conditions: condition::next(before, vec![verdict], report.generation, now),
        images,
        bytes: Some(bytes),
        removals: report.removals.clone(),
        pulls: (report.pulls != PullCount::default()).then_some(report.pulls),
        summary: Some(NodeStatusSummary {
            images: format!("{ready}/{wanted}"),
            progress: condition::progress(bytes.present, bytes.total, done),
        }),
    }
}

fn image_status(image: &ImageReport) -> NodeImageStatus {
    let mut status = NodeImageStatus::new(&image.image, image.platform.as_deref(), ImageState::Pending);
    status.new_digest = image.new_digest.as_ref().map(ToString::to_string);
    status.refresh_time = image.refreshed.map(|time| Time(condition::whole_seconds(time)));
    match &image.state {
        State::Pending => {}
        State::Pulling { present, total } => {
            status.state = ImageState::Pulling;
            status.size = (*total > 0).then(|| bytes(*total));
            status.bytes_present = (*total > 0).then(|| bytes(*present));
        }
        State::Ready { digest, size }
        | State::Saving { digest, size }
        | State::Delivering { digest, size } => {
            status.state = match &image.state {
                State::Ready { .. } => ImageState::Ready,
                State::Saving { .. } => ImageState::Saving,
                _ => ImageState::Delivering,
            };
            status.digest = Some(digest.to_string());
            status.size = Some(bytes(*size));
            status.bytes_present = Some(bytes(*size));
        }
        State::Failed { reason, message, retry_time } => {
            status.state = ImageState::Failed;
            status.reason = Some(*reason);
            status.message = Some(condition::shorten(message));
            status.retry_time = retry_time.map(|time| Time(condition::whole_seconds(time)));
        }
        State::InUse { message } => {
            status.state = ImageState::InUse;
            status.message = Some(condition::shorten(message));
        }
    }
    status
}

/// Kubernetes counts in signed integers.
fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use larder_crds::FailureReason;

    use super::*;

    fn image(name: &str, state: State) -> ImageReport {
        ImageReport::new(name, None, state)
    }

    fn ready(size: u64) -> State {
        State::Ready { digest: larder_oci::Digest::sha256(b"x"), size }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_000).unwrap()
    }

    #[test]
    fn counts_bytes_and_images() {
        let images = vec![
            image("a", ready(30)),
            image("b", State::Pulling { present: 10, total: 50 }),
            image("c", State::Pending),
        ];
        let status = status(&Report { generation: Some(3), images, ..Report::default() }, None, now());
        assert_eq!(status.bytes, Some(ByteCount { total: 80, present: 40 }));
        let summary = status.summary.unwrap();
        assert_eq!((summary.images.as_str(), summary.progress.as_str()), ("1/3", "50%"));
        assert_eq!((status.conditions[0].status.as_str(), status.observed_generation), ("False", Some(3)));
    }

    #[test]
    fn a_failure_is_named_and_no_images_are_ready() {
        let failure = State::Failed {
            reason: FailureReason::NotFound,
            message: "b is not in the registry".to_owned(),
            retry_time: Some(now()),
        };
        let images = vec![image("b", failure)];
        let failing = status(&Report { generation: Some(1), images, ..Report::default() }, None, now());
        assert!(failing.conditions[0].message.contains("b is not in the registry"));
        assert_eq!(failing.conditions[0].reason, "ImagesFailing");
        let empty = status(&Report::default(), None, now());
        assert_eq!(empty.conditions[0].status, "True");
    }

    #[test]
    fn what_is_in_use_is_listed_and_not_counted() {
        let message = "used by container web of pod shop/web-7d4 (running)".to_owned();
        let images = vec![image("a", ready(30)), image("b", State::InUse { message: message.clone() })];
        let report = Report {
            generation: Some(1),
            images,
            runtime: Some("containerd v2.2.1".to_owned()),
            ..Report::default()
        };
        let status = status(&report, None, now());
        assert_eq!(status.conditions[0].status, "True");
        assert_eq!(status.summary.unwrap().images, "1/1");
        assert_eq!(status.bytes, Some(ByteCount { total: 30, present: 30 }));
        assert_eq!((status.images[1].state, &status.images[1].message), (ImageState::InUse, &Some(message)));
        assert_eq!(status.agent.unwrap().runtime.as_deref(), Some("containerd v2.2.1"));
    }

    #[test]
    fn an_unchanged_report_gives_an_unchanged_status() {
        let report = Report { generation: Some(1), images: vec![image("a", ready(30))], ..Report::default() };
        let first = status(&report, None, now());
        let later = status(&report, Some(&first), Timestamp::from_second(2_000).unwrap());
        assert_eq!(first, later);
    }
}
