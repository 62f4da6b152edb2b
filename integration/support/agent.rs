//! An agent that looks after the server of a site.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Page, Site, binary::Running, server::free_port};

/// What an agent of a site is told, and how it is asked.
#[derive(Debug)]
pub struct Agent {
    pub file: PathBuf,
    state: PathBuf,
    page: Page,
}

impl Agent {
    /// A settings file for the server of `site`, with these sections.
    pub fn of(site: &Site, sections: &str) -> Agent {
        Agent::of_machine(site, "", sections)
    }

    /// As [`Agent::of`], with a state directory of its own, as if it were on another machine.
    pub fn of_machine(site: &Site, machine: &str, sections: &str) -> Agent {
        let file = site.folder().join(format!("haulout{machine}.toml"));
        let agent = Agent { file, state: site.folder().join(format!("state{machine}")), page: Page::at(free_port()) };
        agent.write(site, sections);
        agent
    }

    /// Replaces the settings file by one with these sections.
    pub fn write(&self, site: &Site, sections: &str) {
        let (state, port) = (&self.state, self.page.port());
        let text = format!(
            "{sections}\n[mariadb]\nsocket = {:?}\nuser = \"root\"\n{}\n[agent]\nname = \"db1\"\nstate_dir = {state:?}\n\
             listen = \"127.0.0.1:{port}\"\nretry_after = \"1s\"\ntime_zone = \"UTC\"\n",
            site.server.socket(),
            sections.lines().find_map(|line| line.strip_prefix("# mariadb: ")).unwrap_or_default(),
        );
        let new = self.file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &self.file).unwrap();
    }

    /// Starts it.
    pub fn start(&self, site: &Site) -> Running {
        site.haulout.spawn(["--config", self.file.to_str().unwrap(), "agent"])
    }

    /// What it answers over HTTP.
    pub fn page(&self) -> Page {
        self.page
    }

    /// Its state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Status and body of what it answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        self.page.try_get(path).map(|answer| (answer.status, answer.body))
    }

    /// The value of a metric, by its name and labels as they stand there.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.page.metric(name)
    }

    /// Waits until a metric is as wanted.
    pub fn wait_for(&self, running: &mut Running, name: &str, wanted: impl Fn(f64) -> bool) {
        running.wait_for(name, |_| self.metric(name).is_some_and(&wanted));
    }
}
