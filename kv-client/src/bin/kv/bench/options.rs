//! What `bench` can be asked for.

use std::{str::FromStr, time::Duration};

use kv_client::{
    Consistency,
    load::{Choice, Keys, Pace, Plan},
};

use crate::args::{Common, consistency, consistency_text};

/// Measures the cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Share of puts and gets: put, get, or percentages as in put=20,get=80
    #[arg(long, default_value = "put=50,get=50")]
    pub(crate) mix: Mix,
    /// Operations outstanding at any time; with --rate, at most so many
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) out: u32,
    /// Operations a second, due at an even pace; latency then counts from when each was due. Without it, each caller asks
    /// again when it is answered
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Number of different keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keys: u64,
    /// Length of each key in bytes
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub(crate) key_bytes: u32,
    /// What the keys begin with
    #[arg(long, default_value = "bench/")]
    pub(crate) prefix: String,
    /// How keys are chosen: uniform, zipf or zipf=SKEW (0.99 if not given), or new: each put on a key not used before
    #[arg(long, default_value = "uniform", value_parser = choice)]
    pub(crate) distribution: Choice,
    /// Size of each value in bytes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub(crate) value_bytes: u32,
    /// Connections to each node, over which the callers are spread
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(crate) connections: u32,
    /// How long to run before measuring; not with --count
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) warm_up: Duration,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, conflicts_with = "count")]
    pub(crate) duration: Duration,
    /// How often to measure, under the same load; the median by throughput is shown whole
    #[arg(long, default_value_t = 1, conflicts_with = "count", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) repeat: u32,
    /// Number of operations to run, instead of a duration
    #[arg(long)]
    pub(crate) count: Option<u64>,
    /// Write all keys once before measuring
    #[arg(long)]
    pub(crate) fill: bool,
    /// How fresh gets must be: linearizable, stale, or bounded=AGE
    #[arg(long, default_value = "linearizable", value_parser = consistency)]
    pub(crate) consistency: Consistency,
    /// Puts do not wait for the disks
    #[arg(long = "async")]
    pub(crate) is_async: bool,
    /// Where the choice of keys and values begins; the same seed chooses the same
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl Options {
    /// The load that is asked for.
    pub(super) fn plan(&self) -> Plan {
        Plan {
            put_percent: self.mix.put_percent,
            pace: self.rate.map_or(Pace::Closed, |per_second| Pace::Open { per_second }),
            out: self.out,
            keys: Keys {
                prefix: self.prefix.clone(),
                bytes: self.key_bytes as usize,
                count: self.keys,
                choice: self.distribution,
            },
            value_bytes: self.value_bytes as usize,
            count: self.count,
            seed: self.seed,
        }
    }

    /// The whole command, defaults included.
    pub(super) fn command(&self, common: &Common) -> String {
        let put = self.mix.put_percent;
        let time = |time: Duration| humantime::format_duration(time).to_string().replace(' ', "");
        let length = match self.count {
            Some(count) => format!("--count {count}"),
            None => {
                format!("--warm-up {} --duration {} --repeat {}", time(self.warm_up), time(self.duration), self.repeat)
            }
        };
        let distribution = match self.distribution {
            Choice::Uniform => "uniform".to_owned(),
            Choice::Zipf(skew) => format!("zipf={skew}"),
            Choice::New => "new".to_owned(),
        };
        format!(
            "kv --endpoints {} --timeout {} bench --mix put={put},get={}{} --out {} --connections {} --keys {} --key-bytes {} \
             --prefix {} --distribution {distribution} --value-bytes {} {length} --consistency {} --seed {}{}{}",
            common.endpoints,
            time(common.timeout),
            100 - put,
            self.rate.map_or_else(String::new, |rate| format!(" --rate {rate}")),
            self.out,
            self.connections,
            self.keys,
            self.key_bytes,
            self.prefix,
            self.value_bytes,
            consistency_text(self.consistency),
            self.seed,
            if self.fill { " --fill" } else { "" },
            if self.is_async { " --async" } else { "" },
        )
    }
}

/// How many of a hundred operations are puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    pub(crate) put_percent: u8,
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut put, mut get) = (None, None);
        for part in text.split(',') {
            let (kind, percent) = part.split_once('=').unwrap_or((part, "100"));
            let place = match kind.trim() {
                "put" => &mut put,
                "get" => &mut get,
                _ => return Err(format!("{kind:?} is no kind of operation; put and get are")),
            };
            let percent: u8 = percent.trim().parse().map_err(|_| format!("{percent:?} is no percentage"))?;
            if place.replace(percent).is_some() {
                return Err(format!("{kind} is given twice"));
            }
        }
        let (put, get) = (put.unwrap_or(0), get.unwrap_or(0));
        match put.checked_add(get) {
            Some(100) => Ok(Self { put_percent: put }),
            _ => Err("the percentages of put and get must add up to 100".to_owned()),
        }
    }
}

/// YCSB's.
const SKEW_DEFAULT: f64 = 0.99;

fn choice(text: &str) -> Result<Choice, String> {
    match text {
        "uniform" => Ok(Choice::Uniform),
        "new" => Ok(Choice::New),
        "zipf" => Ok(Choice::Zipf(SKEW_DEFAULT)),
        _ => match text.strip_prefix("zipf=").map(str::parse) {
            Some(Ok(skew)) if skew > 0.0 && skew < 1.0 => Ok(Choice::Zipf(skew)),
            Some(_) => Err("the skew must be a number above 0 and below 1".to_owned()),
            None => Err("write uniform, zipf, zipf=SKEW as in zipf=0.8, or new".to_owned()),
        },
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e7 => Ok(rate),
        _ => Err("write a number above 0, and at most 10 million".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    fn parsed(arguments: &str) -> Result<(Args, Options), clap::Error> {
        let words = ["kv", "--endpoints", "a:1,b:2", "bench"].into_iter().chain(arguments.split_whitespace());
        let args = Args::try_parse_from(words)?;
        let Command::Bench(options) = &args.command else { panic!("a bench") };
        let options = (**options).clone();
        Ok((args, options))
    }

    #[test]
    fn the_command_to_repeat_is_the_command() {
        for given in [
            "--mix get --count 5 --async --fill",
            "--rate 12.5 --distribution zipf --warm-up 0s --duration 90s --repeat 5 --connections 8",
            "--distribution new --key-bytes 20 --consistency bounded=1s",
        ] {
            let (args, options) = parsed(given).unwrap();
            let text = options.command(&args.common);
            let again = Args::parse_from(text.split(' '));
            assert_eq!(format!("{again:?}"), format!("{args:?}"));
        }
        let (args, options) = parsed("--count 5").unwrap();
        assert_eq!(
            options.command(&args.common),
            "kv --endpoints a:1,b:2 --timeout 5s bench --mix put=50,get=50 --out 64 --connections 1 --keys 10000 \
             --key-bytes 16 --prefix bench/ --distribution uniform --value-bytes 100 --count 5 --consistency linearizable --seed 1"
        );
    }

    #[test]
    fn a_mix_adds_up() {
        let put_percent = |text: &str| text.parse().map(|mix: Mix| mix.put_percent);
        assert_eq!((put_percent("put"), put_percent("get"), put_percent("get=80,put=20")), (Ok(100), Ok(0), Ok(20)));
        for wrong in ["", "put=50", "put=50,get=60", "put=a,get=50", "scan=100", "put,put", "put=200,get=100"] {
            assert!(put_percent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_can_not_be_is_refused_at_the_door() {
        for wrong in [
            "--rate 0",
            "--rate -5",
            "--rate NaN",
            "--distribution zipf=1",
            "--distribution zipf=x",
            "--distribution hot",
            "--count 5 --duration 5s",
            "--count 5 --repeat 2",
            "--out 0",
            "--keys 0",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
