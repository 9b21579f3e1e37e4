//! A plan as text: one `name = value` a line, written and read back by one list of all fields.
//!
//! A kept seed holds its whole plan in this form, so that it keeps its meaning when plans come to be drawn differently. What a
//! text leaves out is as in the light profile, where nothing goes wrong: a fault that is invented later is none of an older
//! seed's. Lines that begin with `#` say why the seed is kept.
//!
//! The same names override single choices: `sim --seed 7 --set nodes=3 --set faults.crash=0`.

use super::{Kept, Options, Plan};

/// Something that can be written in a line and read back.
trait Value {
    fn show(&self) -> String;
    /// Takes the value over; false if the text is none.
    fn read(&mut self, text: &str) -> bool;
}

macro_rules! plain_value {
    ($($kind:ty)*) => {$(
        impl Value for $kind {
            fn show(&self) -> String {
                self.to_string()
            }

            fn read(&mut self, text: &str) -> bool {
                text.parse().map(|value| *self = value).is_ok()
            }
        }
    )*};
}

plain_value!(bool u32 u64 usize f64);

impl Value for Kept {
    fn show(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Only(numbers) => {
                let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
                if numbers.is_empty() { "none".to_owned() } else { numbers.join(",") }
            }
        }
    }

    fn read(&mut self, text: &str) -> bool {
        let read = match text {
            "all" => Some(Self::All),
            "none" => Some(Self::Only(Vec::new())),
            numbers => numbers.split(',').map(|number| number.parse().ok()).collect::<Option<_>>().map(Self::Only),
        };
        read.map(|kept| *self = kept).is_some()
    }
}

macro_rules! fields {
    ($plan:ident, $visit:ident, $($field:ident)*; $($group:ident: $($part:ident)*;)*) => {
        $($visit(stringify!($field), &mut $plan.$field);)*
        $($($visit(concat!(stringify!($group), ".", stringify!($part)), &mut $plan.$group.$part);)*)*
    };
}

impl Plan {
    /// Every choice by its name. A field that is missing here is noticed by the test below.
    fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut dyn Value)) {
        fields!(
            self, visit,
            seed nodes shards replication faults_micros quiet_micros_max segment_bytes log_bytes_max chunk_bytes_max slice_records_max merge_deltas
                drift_ppm_max faults_kept
                streams_cut full_merges;
            settings: tick_micros heartbeat_ticks election_ticks hand_over_ticks hand_over_pause_ticks checkpoint_ticks checkpoint_percent
                active_bytes_max apply_bytes_max tables_bytes_max kept_bytes_max kept_node_bytes_max uncommitted_bytes_max
                async_commands_max async_bytes_max async_micros_max waiting_requests_max block_bytes_max log_bytes_max
                disk_reserve_bytes stream_ticks_max;
            inbox: requests_max wait_micros_max peer_bytes_max turn_inputs_max turn_bytes_max;
            costs: turn_micros input_micros sync_micros_min sync_micros_max install_micros_max step_micros start_micros;
            links: delay_micros_min jitter_micros ordered drop_ppm duplicate_ppm late_ppm late_micros_max reported_percent;
            workload: clients operations_per_second open_max keys value_bytes_max deadline_micros reads_percent
                old_reads_percent deletes_percent conditions_percent previous_percent async_percent;
            faults: crash crash_all crash_in_recovery kill pause partition partition_one_way link slow_disk failed_sync
                disk_full rot_log rot_file store_lost store_altered transfer zombie lasts_micros;
            founding: from_empty starts_within_micros early_faults early_micros wipe otherwise cut_percent;
            divergences: often trees kept;
            losses: often cut_micros_max kept;
            unaware: often kept;
            operated: async_by_default stops away away_cut_off;
            clients: one_endpoint old_map pushes answer_micros_max held_micros_max prompt_percent churn_percent;
            names: often trees_go_back;
        );
        let bounds = &mut self.settings.session_bounds;
        visit("settings.sessions_max", &mut bounds.sessions_max);
        visit("settings.session_bytes_max", &mut bounds.bytes_max);
        visit("settings.session_open_max", &mut bounds.open_max);
        visit("settings.outcome_bytes_max", &mut bounds.outcome_bytes_max);
        visit("storms.lasts_micros", &mut self.storms.lasts_micros);
        let names: Vec<_> = self.storms.kinds().map(|(name, _)| name).collect();
        for (name, often) in names.into_iter().zip(&mut self.storms.often) {
            visit(&format!("storms.{name}"), often);
        }
    }

    /// All choices, one a line.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.clone().visit(&mut |name, value| text += &format!("{name} = {}\n", value.show()));
        text
    }

    /// Reads what [`Plan::to_text`] wrote.
    ///
    /// # Errors
    /// The first line that says nothing.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let mut plan = Self::draw(0, Options { light: true, ..Options::default() });
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            plan.set(line)?;
        }
        Ok(plan)
    }

    /// Overrides one choice, given as `name=value`.
    ///
    /// # Errors
    /// If there is no such choice, or it can't have that value.
    pub fn set(&mut self, setting: &str) -> Result<(), String> {
        let (name, text) = setting.split_once('=').ok_or_else(|| format!("`{setting}` is not name=value"))?;
        let (name, text) = (name.trim(), text.trim());
        let mut read = None;
        self.visit(&mut |known, value| {
            if known == name {
                read = Some(value.read(text));
            }
        });
        match read {
            Some(true) => Ok(()),
            Some(false) => Err(format!("{name} can't be `{text}`")),
            None => Err(format!("a plan has no choice named {name}")),
        }
    }

    /// The choices that differ from another plan's, as `name=value` for [`Plan::set`].
    #[must_use]
    pub fn settings_beside(&self, other: &Self) -> Vec<String> {
        let (own, others) = (self.to_text(), other.to_text());
        own.lines()
            .zip(others.lines())
            .filter(|(own, other)| own != other)
            .map(|(own, _)| own.replacen(" = ", "=", 1))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_back_as_it_was_written() {
        for seed in 0..1_000 {
            let mut plan = Plan::draw(seed, Options::default());
            if seed % 3 == 0 {
                plan.faults_kept = Kept::Only((0..seed % 5).collect());
                plan.divergences.kept = Kept::Only((0..seed % 4).collect());
                plan.losses.kept = Kept::Only((0..seed % 7).collect());
                plan.unaware.kept = Kept::Only((0..seed % 6).collect());
            }
            let read = Plan::from_text(&plan.to_text()).unwrap();
            assert_eq!(
                format!("{read:?}"),
                format!("{plan:?}"),
                "a field is missing in the list above, or is cut when shown"
            );
        }
    }

    #[test]
    fn what_differs_is_enough_to_come_from_one_plan_to_another() {
        let mut plan = Plan::draw(1, Options::default());
        for setting in Plan::draw(2, Options::default()).settings_beside(&plan) {
            plan.set(&setting).unwrap();
        }
        assert_eq!(plan.to_text(), Plan::draw(2, Options::default()).to_text());
    }

    #[test]
    fn what_says_nothing_is_refused() {
        let mut plan = Plan::draw(1, Options::default());
        for setting in ["nodes", "nodes=", "nodes=x", "noodles=3", "faults_kept=1,x", "links.ordered=2"] {
            assert!(plan.set(setting).is_err(), "{setting}");
        }
    }
}
