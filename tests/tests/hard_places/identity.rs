//! A process is killed at every step of writing its identity, started again, and then the power goes.

use kv_core::{
    founding::IdentityFile,
    types::{Incarnation, NodeId},
};
use kv_tests::disk::SimDisk;

fn identity(incarnation: u128) -> IdentityFile {
    IdentityFile { node: NodeId(1), incarnation: Incarnation(incarnation), lowest: None, record: None }
}

#[test]
fn what_a_start_has_read_of_an_identity_outlives_a_loss_of_power() {
    let load = |disk: &SimDisk| IdentityFile::load(&mut disk.files(), NodeId(1)).unwrap();
    for is_first in [true, false] {
        for steps in 0.. {
            let disk = SimDisk::new();
            if !is_first {
                identity(1).store(&mut disk.files()).unwrap();
            }
            disk.power_off_after(steps);
            let is_whole = identity(2).store(&mut disk.files()).is_ok();
            disk.kill();
            let seen = load(&disk);
            disk.crash_keeping(|| false, |_, _| false);
            assert_eq!(load(&disk), seen, "killed after {steps} steps");
            if is_whole {
                assert!(steps > 3 && seen == Some(identity(2)));
                break;
            }
        }
    }
}
