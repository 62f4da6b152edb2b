//! What a run of an agent owes it: to end when the agent is gone, and to be as nice as it was told.

use std::sync::OnceLock;

use rustix::process::{Pid, Signal, getppid, nice, set_parent_process_death_signal};

use super::environment::Environment;

/// Variable by which an agent tells a run whose it is: `PROCESS:NICENESS`.
pub const VARIABLE: &str = "HAULOUT_AGENT";

/// The agent, once its run was taken up.
static AGENT: OnceLock<i32> = OnceLock::new();

/// Takes up the run of an agent, where this process is one; false when the agent is gone already.
///
/// An agent that is killed cannot end its runs. One that went on would hold the repository's leases against those of the next agent.
pub fn take_up(environment: &Environment) -> bool {
    let Some((agent, niceness)) = environment.get(VARIABLE).and_then(|value| value.to_str()?.split_once(':')) else {
        return true;
    };
    let (Ok(agent), Ok(niceness)) = (agent.parse::<i32>(), niceness.parse::<i32>()) else { return true };
    let _ = AGENT.set(agent);
    // Neither is worth a backup. Of an agent with threads the signal comes for each that it was the child of, which SIGTERM, of which the second
    // ends a run at once, would not bear.
    let _ = set_parent_process_death_signal(Some(Signal::HUP));
    if niceness > 0 {
        let _ = nice(niceness);
    }
    is_parent(agent)
}

/// True in the run of an agent that lives: a thread of it has ended, not the agent.
pub fn agent_lives() -> bool {
    AGENT.get().is_some_and(|agent| is_parent(*agent))
}

fn is_parent(agent: i32) -> bool {
    getppid().map(Pid::as_raw_nonzero).is_some_and(|parent| parent.get() == agent)
}
