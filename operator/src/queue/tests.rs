use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::*;

type Log = Arc<Mutex<Vec<(u32, Instant)>>>;

fn queue(spacing: fn(&u32) -> Duration) -> Arc<Queue<u32>> {
    Arc::new(Queue::new(Policy { spacing, lane }))
}

/// Keys from here on are few.
const FEW: u32 = 1_000_000;

#[allow(clippy::trivially_copy_pass_by_ref)]
fn lane(key: &u32) -> Lane {
    if *key < FEW { Lane::Many } else { Lane::Few }
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn none(_: &u32) -> Duration {
    Duration::ZERO
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn second(_: &u32) -> Duration {
    Duration::from_secs(1)
}

/// Runs `queue` for a span of paused time, logging each run; `work` says how the n-th run of a key ends.
async fn run_for(
    span: Duration,
    queue: &Arc<Queue<u32>>,
    work: fn(u32, usize) -> Outcome,
) -> Vec<(u32, Instant)> {
    let log: Log = Arc::default();
    let shutdown = CancellationToken::new();
    let (shared, stop) = (Arc::clone(&log), shutdown.clone());
    tokio::spawn(async move {
        tokio::time::sleep(span).await;
        stop.cancel();
    });
    queue
        .run(4, &Pulse::default(), &shutdown, move |key| {
            let log = Arc::clone(&shared);
            async move {
                let mut log = log.lock().unwrap();
                log.push((key, Instant::now()));
                work(key, log.iter().filter(|(other, _)| *other == key).count())
            }
        })
        .await;
    Arc::try_unwrap(log).map(|log| log.into_inner().unwrap()).unwrap_or_default()
}

fn done(_: u32, _: usize) -> Outcome {
    Outcome::Done
}

#[tokio::test(start_paused = true)]
async fn a_key_added_often_is_worked_on_once() {
    let queue = queue(none);
    for _ in 0..100 {
        queue.add([1, 2]);
    }
    let runs = run_for(Duration::from_secs(60), &queue, done).await;
    assert_eq!(runs.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_key_added_while_it_is_worked_on_comes_up_again_and_never_twice_at_once() {
    let queue = queue(none);
    queue.add([1]);
    let (at_once, most, runs) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let shutdown = CancellationToken::new();
    let (stop, adding, counted) = (shutdown.clone(), Arc::clone(&queue), Arc::clone(&runs));
    let highest = Arc::clone(&most);
    queue
        .run(4, &Pulse::default(), &shutdown, move |key| {
            let (at_once, most, runs) = (Arc::clone(&at_once), Arc::clone(&most), Arc::clone(&runs));
            let (adding, stop) = (Arc::clone(&adding), stop.clone());
            async move {
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                if runs.fetch_add(1, Ordering::SeqCst) < 3 {
                    adding.add([key]);
                } else {
                    stop.cancel();
                }
                tokio::time::sleep(Duration::from_secs(5)).await;
                at_once.fetch_sub(1, Ordering::SeqCst);
                Outcome::Done
            }
        })
        .await;
    assert_eq!((counted.load(Ordering::SeqCst), highest.load(Ordering::SeqCst)), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_limit_at_once_and_all_in_the_end() {
    let queue = queue(none);
    queue.add(0..50);
    let shutdown = CancellationToken::new();
    let (at_once, most, runs) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (highest, counted, stop) = (Arc::clone(&most), Arc::clone(&runs), shutdown.clone());
    queue
        .run(4, &Pulse::default(), &shutdown, move |_| {
            let (at_once, most, runs) = (Arc::clone(&at_once), Arc::clone(&most), Arc::clone(&runs));
            let stop = stop.clone();
            async move {
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                at_once.fetch_sub(1, Ordering::SeqCst);
                if runs.fetch_add(1, Ordering::SeqCst) == 49 {
                    stop.cancel();
                }
                Outcome::Done
            }
        })
        .await;
    assert_eq!((counted.load(Ordering::SeqCst), highest.load(Ordering::SeqCst)), (50, 4));
}

#[tokio::test(start_paused = true)]
async fn retries_are_further_and_further_apart_up_to_a_cap() {
    let queue = queue(none);
    queue.add([1]);
    let runs = run_for(Duration::from_secs(1_000), &queue, |_, _| Outcome::Retry).await;
    let gaps: Vec<Duration> = runs.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    for (number, gap) in gaps.iter().enumerate() {
        let base = FIRST_RETRY.saturating_mul(1 << number.min(16)).min(LAST_RETRY);
        assert!(*gap >= base && *gap <= base * 2 + Duration::from_millis(1), "retry {number} after {gap:?}");
    }
    assert!(gaps.len() > 20, "{}", gaps.len());
}

#[tokio::test(start_paused = true)]
async fn a_success_resets_the_delay() {
    let queue = queue(none);
    queue.add([1]);
    run_for(Duration::from_secs(300), &queue, |_, run| if run < 6 { Outcome::Retry } else { Outcome::Done })
        .await;
    queue.add([1]);
    let runs =
        run_for(
            Duration::from_secs(300),
            &queue,
            |_, run| if run < 2 { Outcome::Retry } else { Outcome::Done },
        );
    let runs = runs.await;
    assert!(runs[1].1 - runs[0].1 <= FIRST_RETRY * 2 + Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn a_change_cuts_a_retry_short() {
    let queue = queue(none);
    queue.add([1]);
    run_for(Duration::from_secs(60), &queue, |_, _| Outcome::Retry).await;
    let before = Instant::now();
    queue.add([1]);
    let runs = run_for(Duration::from_secs(1), &queue, done).await;
    assert_eq!(runs, [(1, before)]);
}

/// The run that fails may have looked before the change came.
#[tokio::test(start_paused = true)]
async fn a_change_during_a_run_that_fails_cuts_its_retry_short_and_not_its_spacing() {
    let queue = queue(second);
    queue.add([1]);
    // Far apart by now.
    run_for(Duration::from_secs(300), &queue, |_, _| Outcome::Retry).await;
    queue.add([1]);
    let shutdown = CancellationToken::new();
    let runs: Log = Arc::default();
    let (log, adding, stop) = (Arc::clone(&runs), Arc::clone(&queue), shutdown.clone());
    queue
        .run(4, &Pulse::default(), &shutdown, move |key| {
            let number = log.lock().unwrap().len();
            log.lock().unwrap().push((key, Instant::now()));
            match number {
                0 => adding.add([key]),
                1 => {}
                _ => stop.cancel(),
            }
            async { Outcome::Retry }
        })
        .await;
    let runs: Vec<Instant> = runs.lock().unwrap().iter().map(|(_, at)| *at).collect();
    let gaps: Vec<Duration> = runs.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps[0], Duration::from_secs(1), "the change is looked at as soon as the spacing allows");
    assert!(gaps[1] >= LAST_RETRY, "without another one the delay goes on growing: {gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn runs_of_a_key_are_spaced_and_the_first_is_not() {
    let queue = queue(second);
    let adding = Arc::clone(&queue);
    let start = Instant::now();
    let adder = tokio::spawn(async move {
        for _ in 0..100 {
            adding.add([1]);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let runs = run_for(Duration::from_secs(30), &queue, done).await;
    adder.await.unwrap();
    assert_eq!(runs[0].1, start);
    assert!(runs.windows(2).all(|pair| pair[1].1 - pair[0].1 >= Duration::from_secs(1)), "{runs:?}");
    // The last change is never lost: it came after 4.95 s.
    assert!(runs.len() == 6 && runs[5].1 - start >= Duration::from_millis(4_950), "{runs:?}");
}

#[tokio::test(start_paused = true)]
async fn idle_keys_are_forgotten() {
    let queue = queue(second);
    queue.add(0..1_000);
    run_for(Duration::from_secs(60), &queue, done).await;
    let state = queue.state();
    assert_eq!((state.entries.len(), state.due.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_holds_up_no_other() {
    let queue = queue(none);
    queue.add([1, 2, 3]);
    let work = |key, _| if key == 1 { Outcome::Retry } else { Outcome::Done };
    let runs = run_for(Duration::from_secs(5), &queue, work).await;
    let mut counts: HashMap<u32, usize> = HashMap::new();
    for (key, _) in runs {
        *counts.entry(key).or_default() += 1;
    }
    assert!(counts[&1] > 2 && counts[&2] == 1 && counts[&3] == 1, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_work_finish_and_starts_none() {
    let queue = queue(none);
    queue.add(0..10);
    let shutdown = CancellationToken::new();
    let finished = Arc::new(AtomicUsize::new(0));
    let (stop, counted) = (shutdown.clone(), Arc::clone(&finished));
    queue
        .run(4, &Pulse::default(), &shutdown, move |_| {
            let (stop, finished) = (stop.clone(), Arc::clone(&finished));
            async move {
                stop.cancel();
                tokio::time::sleep(Duration::from_secs(5)).await;
                finished.fetch_add(1, Ordering::SeqCst);
                Outcome::Done
            }
        })
        .await;
    assert_eq!(counted.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn the_depth_is_what_waits_and_for_how_long() {
    let queue = queue(none);
    assert_eq!(queue.depth(), Depth::default());
    queue.add([1, 2]);
    tokio::time::advance(Duration::from_secs(7)).await;
    queue.add([2, 3]);
    assert_eq!(queue.depth(), Depth { keys: 3, oldest: Duration::from_secs(7) });
    run_for(Duration::from_secs(1), &queue, done).await;
    assert_eq!(queue.depth(), Depth::default());
}

/// A status of an `ImageCache` is not to wait until thousands of nodes have been told, nor the other way round.
#[tokio::test(start_paused = true)]
async fn few_keys_do_not_wait_behind_many_nor_hold_them_up() {
    let queue = queue(none);
    queue.add(0..1_000);
    queue.add(FEW..FEW + 3);
    let order = |runs: Vec<(u32, Instant)>| runs.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let runs = order(run_for(Duration::from_secs(60), &queue, done).await);
    assert_eq!((runs.len(), &runs[..8]), (1_003, &[FEW, 0, FEW + 1, 1, FEW + 2, 2, 3, 4][..]));
    // Where more stand in the lane of the few, every other turn is still the other's.
    queue.add(0..10);
    queue.add(FEW..FEW + 100);
    let runs = order(run_for(Duration::from_secs(60), &queue, done).await);
    let last = runs.iter().rposition(|key| *key < FEW).unwrap();
    assert!(runs.len() == 110 && last <= 20, "{runs:?}");
}

/// A thousand nodes that have just been told, and one that has to be told again, must not cost that one its turns.
#[tokio::test(start_paused = true)]
async fn keys_that_only_rest_take_no_turns() {
    let queue = queue(second);
    queue.add(0..100);
    let told = run_for(Duration::from_millis(1), &queue, done).await;
    assert_eq!(told.len(), 100);
    queue.add([99]);
    tokio::time::advance(Duration::from_secs(1)).await;
    queue.add(FEW..FEW + 50);
    let runs = run_for(Duration::from_millis(1), &queue, done).await;
    let place = runs.iter().position(|(key, _)| *key == 99).unwrap();
    assert!(runs.len() == 51 && place <= 1, "it was worked on after {place} others");
}
