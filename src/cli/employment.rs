//! What a run of an agent owes it: to end when the agent is gone, and to be as nice as it was told.

use rustix::process::{Pid, Signal, getppid, nice, set_parent_process_death_signal};

use super::environment::Environment;

/// Variable by which an agent tells a run whose it is: `PROCESS:NICENESS`.
pub const VARIABLE: &str = "HAULOUT_AGENT";

/// Takes up the run of an agent, where this process is one; false when the agent is gone already.
///
/// An agent that is killed cannot end its runs. One that went on would hold the repository's leases against those of the next agent.
pub fn take_up(environment: &Environment) -> bool {
    let Some((agent, niceness)) = environment.get(VARIABLE).and_then(|value| value.to_str()?.split_once(':')) else {
        return true;
    };
    let (Ok(agent), Ok(niceness)) = (agent.parse::<i32>(), niceness.parse::<i32>()) else { return true };
    // Neither is worth a backup.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    if niceness > 0 {
        let _ = nice(niceness);
    }
    getppid().map(Pid::as_raw_nonzero).is_some_and(|parent| parent.get() == agent)
}
