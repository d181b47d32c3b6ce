//! Pushing: to a repository that has nothing, to one that has all, and to one next to one that has all.

use anyhow::ensure;
use larder_tests::Request;
use larder_tests::process::run as run_program;
use larder_tests::registry::Mark;

use super::{NAME, Stage, text};
use crate::bench::contest::{Entrant, hold, skopeo_memory};

pub fn run(stage: &Stage) -> anyhow::Result<()> {
    fresh(stage)?;
    again(stage)?;
    mount(stage)
}

/// Each run has a repository of its own. Larder knows no other that has the image: what an earlier run pushed loses
/// its name first.
fn fresh(stage: &Stage) -> anyhow::Result<()> {
    let host = stage.registry.host();
    let target = |program: &str, run: usize| format!("{host}/fresh-{program}-{run}:v1");
    let entrants = [
        Entrant::new("larder push", |_, run| {
            let name = target("larder", run);
            if let Some(before) = run.checked_sub(1) {
                stage.larder(&["rm", &target("larder", before)])?;
            }
            stage.larder(&["tag", NAME, &name])?;
            Ok(stage.larder_command(&stage.store, &["push", "--quiet", &name]))
        }),
        Entrant::new("skopeo", |_, run| Ok(skopeo(stage, &stage.source(), &target("skopeo", run)))),
        Entrant::new("crane", |_, run| Ok(crane(stage, &target("crane", run)))),
    ];
    let mark = stage.registry.mark()?;
    hold("push, fresh", stage.runs, &entrants, &stage.scratch)?;
    for program in ["larder", "skopeo", "crane"] {
        ensure!(uploads(stage, mark, &format!("/fresh-{program}-"))? > 0, "{program} sent nothing");
    }
    stage.larder(&["rm", &target("larder", stage.runs - 1)])
}

fn again(stage: &Stage) -> anyhow::Result<()> {
    let name = format!("{}/again:v1", stage.registry.host());
    stage.larder(&["tag", NAME, &name])?;
    stage.larder(&["push", "--quiet", &name])?;
    let entrants = [
        Entrant::new("larder push", |_, _| {
            Ok(stage.larder_command(&stage.store, &["push", "--quiet", &name]))
        }),
        Entrant::new("skopeo", |_, _| Ok(skopeo(stage, &stage.source(), &name))),
        Entrant::new("crane", |_, _| Ok(crane(stage, &name))),
    ];
    let mark = stage.registry.mark()?;
    hold("push, again", stage.runs, &entrants, &stage.scratch)?;
    ensure!(uploads(stage, mark, "/again/")? == 0, "a program uploaded what was there");
    Ok(())
}

/// Larder knows from its store where the image is, and skopeo from what it remembers of an earlier push. crane mounts
/// only when it copies within a registry, so that is what it does.
fn mount(stage: &Stage) -> anyhow::Result<()> {
    let memory = stage.scratch.folder("skopeo")?;
    let host = stage.registry.host();
    let base = format!("{host}/again:v1");
    // It remembers what it has sent, not what it has found there.
    let command = skopeo(stage, &stage.source(), &format!("{host}/sent-by-skopeo:v1"));
    let args: Vec<&str> = command.iter().skip(1).map(String::as_str).collect();
    run_program(&stage.skopeo, &args, &skopeo_memory(&memory), b"")?.ok()?;
    let target = |program: &str, run: usize| format!("{host}/mounted-{program}-{run}:v1");
    let entrants = [
        Entrant::new("larder push", |_, run| {
            let name = target("larder", run);
            stage.larder(&["tag", NAME, &name])?;
            Ok(stage.larder_command(&stage.store, &["push", "--quiet", &name]))
        }),
        Entrant::new("skopeo", |_, run| Ok(skopeo(stage, &stage.source(), &target("skopeo", run))))
            .env("XDG_DATA_HOME", &memory),
        Entrant::new("crane copy", |_, run| {
            let args = [&*text(&stage.crane), "copy", "--insecure", &base, &target("crane", run)];
            Ok(args.map(str::to_owned).to_vec())
        }),
    ];
    let mark = stage.registry.mark()?;
    hold("push by mount", stage.runs, &entrants, &stage.scratch)?;
    for program in ["larder", "skopeo", "crane"] {
        let sent = uploads(stage, mark, &format!("/mounted-{program}-"))?;
        println!("{}{program}: {sent} blobs sent", if program == "larder" { "\n" } else { "" });
        ensure!(program != "larder" || sent == 0, "larder sent what it could have mounted");
    }
    Ok(())
}

/// How many blobs were sent to repositories with this in their path: the last request of each. A mount has none.
fn uploads(stage: &Stage, since: Mark, repository: &str) -> anyhow::Result<usize> {
    let requests = stage.registry.requests_since(since)?;
    let sent = |request: &Request| request.method == "PUT" && request.path.contains("/blobs/uploads/");
    Ok(requests.count(|request| sent(request) && request.path.contains(repository)))
}

fn skopeo(stage: &Stage, from: &str, to: &str) -> Vec<String> {
    let options = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    stage.skopeo_command(&[options.as_slice(), &[from, &format!("docker://{to}")]].concat())
}

fn crane(stage: &Stage, to: &str) -> Vec<String> {
    [&*text(&stage.crane), "push", "--insecure", &text(&stage.layout), to].map(str::to_owned).to_vec()
}
