//! What is shown while layers move: lines in a pipe, bars on a terminal.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use larder_oci::Digest;
use larder_pull::{Event, Observer, PushEvent, PushObserver};
use larder_registry::PushOutcome;

use crate::Context;

/// Shows layers as they move. Makes one line a layer and stage in a pipe, and one bar a layer on a terminal.
pub(crate) struct Layers {
    context: Context,
    bars: Option<MultiProgress>,
    rows: Mutex<BTreeMap<Digest, Row>>,
}

/// One layer.
struct Row {
    size: u64,
    /// The last line that was printed for it, so that none is printed twice.
    stage: &'static str,
    bar: Option<ProgressBar>,
}

impl Layers {
    pub(crate) fn new(context: &Context) -> Self {
        let target = || MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        Self { context: context.clone(), bars: context.is_terminal().then(target), rows: Mutex::default() }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Digest, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_row(&self, size: u64) -> Row {
        Row { size, stage: "", bar: self.bars.as_ref().map(|bars| bars.add(ProgressBar::new(size))) }
    }

    /// Goes on to another stage; `text` is what is shown of it, where that differs.
    fn enter(&self, blob: &Digest, row: &mut Row, stage: &'static str, text: &str) {
        if row.stage == stage {
            return;
        }
        row.stage = stage;
        match &row.bar {
            Some(bar) => {
                bar.set_style(plain());
                bar.set_prefix(blob.short().to_owned());
                bar.set_message(text.to_owned());
                bar.tick();
            }
            // A reader that is gone is noticed at the next line that matters.
            None => drop(self.context.line(format_args!("{}: {text}", blob.short()))),
        }
    }

    /// Moves a bar. In a pipe, bytes are no news.
    fn advance(blob: &Digest, row: &mut Row, stage: &'static str, bytes: u64) {
        let Some(bar) = &row.bar else { return };
        if row.stage != stage {
            row.stage = stage;
            bar.set_style(moving());
            bar.set_prefix(blob.short().to_owned());
            bar.set_message(stage);
        }
        bar.set_position(bytes.min(row.size));
    }

    /// Leaves what is on the terminal as it stands.
    pub(crate) fn close(&self) {
        for row in self.rows().values() {
            if let Some(bar) = &row.bar {
                bar.abandon();
            }
        }
    }
}

impl Observer for Layers {
    fn layers(&self, layers: &[(Digest, u64)]) {
        let mut rows = self.rows();
        for (digest, size) in layers {
            rows.entry(digest.clone()).or_insert_with(|| self.new_row(*size));
        }
    }

    fn event(&self, blob: &Digest, event: Event) {
        let mut rows = self.rows();
        // The configuration is no layer, and docker does not show it.
        let Some(row) = rows.get_mut(blob) else { return };
        if row.stage.is_empty() && event != Event::AlreadyExists {
            self.enter(blob, row, "new", "Pulling fs layer");
        }
        match event {
            Event::Waiting => self.enter(blob, row, "waiting", "Waiting"),
            Event::AlreadyExists => self.enter(blob, row, "done", "Already exists"),
            Event::Downloading(bytes) => Self::advance(blob, row, "Downloading", bytes),
            Event::Verifying => self.enter(blob, row, "verifying", "Verifying Checksum"),
            Event::Complete => {
                if row.bar.is_none() {
                    self.enter(blob, row, "downloaded", "Download complete");
                }
                self.enter(blob, row, "done", "Pull complete");
            }
        }
    }
}

impl PushObserver for Layers {
    fn event(&self, blob: &Digest, size: u64, event: PushEvent) {
        let mut rows = self.rows();
        let row = rows.entry(blob.clone()).or_insert_with(|| self.new_row(size));
        match event {
            PushEvent::Preparing => self.enter(blob, row, "new", "Preparing"),
            PushEvent::Pushing(bytes) => Self::advance(blob, row, "Pushing", bytes),
            PushEvent::Done(PushOutcome::Uploaded) => self.enter(blob, row, "done", "Pushed"),
            PushEvent::Done(PushOutcome::AlreadyExists) => {
                self.enter(blob, row, "done", "Layer already exists");
            }
            PushEvent::Done(PushOutcome::Mounted { from }) => {
                self.enter(blob, row, "done", &format!("Mounted from {from}"));
            }
        }
    }
}

fn plain() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn moving() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg} [{bar:50}] {decimal_bytes}/{decimal_total_bytes}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
