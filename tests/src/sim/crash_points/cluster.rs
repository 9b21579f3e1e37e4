//! After a crash at a drawn step the whole cluster goes on: the story is played to its end, faults stop, and all that holds
//! after any run must hold after this one.

use fastrand::Rng;

use super::story::{NODE, Story, play};

/// Plays the story so often, each time with the power going at another step; counts as it goes.
///
/// # Errors
/// The first property that does not hold, with the step.
pub(super) fn go_on(story: &Story, times: u64, count: &mut u64) -> Result<(), String> {
    let mut rng = Rng::with_seed(story.plan.seed);
    for _ in 0..times {
        let step = rng.u64(..story.looks.steps as u64);
        let mut world = play(story.plan.clone(), |world| world.machines[NODE].disk.power_off_at(step));
        world.quieten();
        world.settle();
        let (report, _) = world.finish();
        if let Some(violation) = report.failure {
            return Err(format!("the power goes at step {step}, and the cluster goes on: {violation}"));
        }
        *count += 1;
    }
    Ok(())
}
