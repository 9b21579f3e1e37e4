//! A process is killed at every step of making a directory, started again, and uses it; then the power goes.

use kv_core::disk::FileDisk;
use kv_tests::disk::SimDisk;

#[test]
fn what_is_synced_in_a_directory_outlives_a_loss_of_power_whoever_made_the_directory() {
    for steps in 0.. {
        let disk = SimDisk::new();
        disk.power_off_after(steps);
        let is_whole = disk.files().create_directory("r1/set-1").is_ok();
        disk.kill();

        let mut files = disk.files();
        files.create_directory("r1/set-1").unwrap();
        files.write("r1/set-1/base", 0, b"state").unwrap();
        files.sync("r1/set-1/base").unwrap();
        files.sync_directory("r1/set-1").unwrap();
        disk.crash_keeping(|| false, |_, _| false);
        assert_eq!(disk.files().size("r1/set-1/base").unwrap(), Some(5), "killed after {steps} steps");
        if is_whole {
            assert!(steps > 3);
            break;
        }
    }
}
