//! A small file system of its own, for plays about disks that are full or cannot be written.
//!
//! Mounting is for root in a system that lets it; elsewhere there is none and the play says that it was skipped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A tmpfs. It is unmounted when it is dropped.
#[derive(Debug)]
pub struct Mount {
    folder: TempDir,
}

impl Mount {
    /// Mounts one of this size, such as `24m`; none where mounting is refused, which is printed.
    pub fn of_size(size: &str) -> Option<Self> {
        let folder = crate::temp_dir("mount");
        let options = format!("size={size},mode=0700");
        if run(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs"], folder.path()) {
            return Some(Self { folder });
        }
        println!("skipped: this system lets nobody mount a tmpfs here");
        None
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// From now on nothing in it can be written, not even by root.
    #[track_caller]
    pub fn make_read_only(&self) {
        assert!(run(&["mount", "-o", "remount,ro"], self.folder.path()), "what was mounted can be mounted anew");
    }

    /// Takes all the room but so many bytes, with a file of this name.
    #[track_caller]
    pub fn fill_but(&self, name: &str, left: u64) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.path(name)).expect("a new file system is writable");
        let piece = [0x5a; 4096];
        let mut written = 0u64;
        while file.write_all(&piece).is_ok() {
            written += piece.len() as u64;
        }
        file.set_len(written.saturating_sub(left)).expect("a file can be cut");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process that was just killed may not be gone yet.
        if !run(&["umount", "-l"], self.folder.path()) {
            eprintln!("{} stays mounted", self.folder.path().display());
        }
    }
}

fn run(command: &[&str], folder: &Path) -> bool {
    let [program, arguments @ ..] = command else { return false };
    let status = Command::new(program).args(arguments).arg(folder).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
