//! The founding of the cluster, as far as this node has a part in it: the core's protocol, its messages and its one file.

use std::sync::Arc;

use kv_core::{
    founding::{Founder, FounderOutput, FounderStart, FoundingMessage, FoundingRecord},
    types::NodeId,
};

use crate::{
    config::Config,
    disk::DataDirectory,
    peers::Peers,
    shared::Shared,
    stop::{Failure, Trouble},
};

/// The protocol with the directory it writes to.
pub(crate) struct Founding {
    founder: Founder,
    directory: DataDirectory,
    shared: Arc<Shared>,
    /// What is still to be done, from the start until the loop runs.
    first: Vec<FounderOutput>,
}

impl Founding {
    /// Begins with what the directory says. The log must have been made by now.
    ///
    /// # Errors
    /// If the configuration is not that of the directory, or can't be right.
    pub(crate) fn begin(
        config: &Config,
        directory: DataDirectory,
        entropy: u128,
        shared: &Arc<Shared>,
    ) -> Result<Self, Failure> {
        let start = FounderStart {
            node: config.node,
            settings: config.founding(),
            zone: config.zone.clone(),
            weight: config.weight,
            on_disk: directory.identity().cloned(),
            entropy,
        };
        let (founder, first) = Founder::new(start).map_err(|error| {
            let was_used = directory.identity().is_some();
            let trouble = if was_used { Trouble::DataDirectory } else { Trouble::Configuration };
            Failure::new(trouble, error.message().to_owned())
        })?;
        shared.set_incarnation(founder.identity().incarnation);
        Ok(Self { founder, directory, shared: Arc::clone(shared), first })
    }

    /// What the directory said was founded, if it did.
    pub(crate) fn record(&self) -> Option<FoundingRecord> {
        self.directory.identity().and_then(|identity| identity.record.clone())
    }

    /// Does what was left from the start. Gives the record when the cluster is founded.
    pub(crate) fn first(&mut self, peers: &Peers) -> Option<FoundingRecord> {
        let outputs = std::mem::take(&mut self.first);
        self.perform(outputs, peers)
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, peers: &Peers) -> Option<FoundingRecord> {
        let outputs = self.founder.tick();
        self.perform(outputs, peers)
    }

    /// A message has come.
    pub(crate) fn message(&mut self, from: NodeId, message: FoundingMessage, peers: &Peers) -> Option<FoundingRecord> {
        let outputs = self.founder.message(from, message);
        self.perform(outputs, peers)
    }

    fn perform(&mut self, mut outputs: Vec<FounderOutput>, peers: &Peers) -> Option<FoundingRecord> {
        let mut founded = None;
        while !outputs.is_empty() {
            for output in std::mem::take(&mut outputs) {
                match output {
                    FounderOutput::Send { to, message } => peers.send_founding(to, &message),
                    FounderOutput::Persist(file) => {
                        // A small file, before there is anything that could wait for this thread.
                        if let Err(error) = self.directory.write_identity(file) {
                            self.shared.stop.failed(error.into());
                            return None;
                        }
                        self.shared.set_incarnation(self.founder.identity().incarnation);
                        outputs.extend(self.founder.persisted());
                    }
                    FounderOutput::Founded(record) => founded = Some(record),
                    FounderOutput::Waiting(reason) => {
                        tracing::info!(%reason, "the cluster is not founded yet");
                        self.shared.set_unready(Some(reason));
                    }
                    FounderOutput::Stop(sentence) => {
                        let is_mistake = self.founder.is_misconfigured();
                        let trouble = if is_mistake { Trouble::Configuration } else { Trouble::DataDirectory };
                        self.shared.stop.fail(trouble, sentence);
                    }
                }
            }
        }
        founded
    }
}
