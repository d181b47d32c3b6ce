//! The figures, for people.

use super::course::Course;

/// Prints what each step cost.
pub(super) fn print(course: &Course) {
    println!("\n{} nodes, {} images ({} blobs in all stores)\n", course.nodes, course.images, course.blobs);
    println!(
        "| step | done s | told s | specifications | nodes' statuses | most of one | ImageCaches' | agents' events | operator's events | \
         refused | restarts | registry: changed, others | operator CPU s | peak MiB | at the end | API server MiB |"
    );
    println!(
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for (_, step) in &course.steps {
        println!(
            "| {} | {:.1} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {}, {} | {:.2} | {:.1} | {:.1} | {:.0} |",
            step.name,
            step.seconds,
            step.told.map_or_else(|| "-".to_owned(), |told| format!("{told:.1}")),
            step.specs.all(),
            step.statuses.all(),
            step.statuses.most(),
            step.cache_statuses,
            step.agent_events,
            step.operator_events,
            step.refused(),
            step.restarts,
            step.registry[0],
            step.registry[1],
            step.cpu,
            step.peak,
            step.memory,
            step.apiserver,
        );
    }
    println!("\npulls that failed, and were tried again: {}", course.failed_pulls);
    println!("an answer of /metrics: {:.1} ms", course.metrics * 1e3);
}

/// Prints how large the objects are.
pub(super) fn print_sizes(few: &Course, many: &Course) {
    println!(
        "\nbytes of JSON\n\n| object | {} nodes | {} nodes |\n| --- | ---: | ---: |",
        few.nodes, many.nodes
    );
    println!("| ImageCache | {} | {} |", few.sizes.cache, many.sizes.cache);
    let parts = ["largest NodeImageCache", "of it spec", "of it status", "of it managedFields"];
    for (number, part) in parts.into_iter().enumerate() {
        println!("| {part} | {} | {} |", few.sizes.node_cache[number], many.sizes.node_cache[number]);
    }
}
