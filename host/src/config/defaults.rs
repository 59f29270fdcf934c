//! Defaults that depend on the machine: how much disk is free and how much memory there is (of the machine, or of the control
//! group that the program runs in).

use std::path::Path;

/// The most disk that is taken unasked.
pub const DISK_MOST_BYTES: u64 = 10_000_000_000;
/// The most memory that is taken unasked.
pub const MEMORY_MOST_BYTES: u64 = 1 << 30;
/// What is taken when nobody can say how much there is.
const MEMORY_UNKNOWN_BYTES: u64 = 256 << 20;

/// 10 GB, or half of what is free if that is less.
pub fn disk_bytes(free: Option<u64>) -> u64 {
    free.map_or(DISK_MOST_BYTES, |free| DISK_MOST_BYTES.min(free / 2))
}

/// A quarter of the memory, at most 1 GiB.
pub fn memory_bytes(memory: Option<u64>) -> u64 {
    memory.map_or(MEMORY_UNKNOWN_BYTES, |memory| MEMORY_MOST_BYTES.min(memory / 4))
}

/// Bytes that are free where a folder is, or would be made, and those that files in it take already: what a cache holds is
/// its own to use, or each start would find less room than the one before.
pub fn disk_free(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|ancestor| ancestor.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    let free = stat.f_bavail.checked_mul(stat.f_frsize)?;
    Some(if free / 2 < DISK_MOST_BYTES { free + taken(folder) } else { free })
}

/// Bytes on disk of the files in a folder and those below. What cannot be looked at does not count.
fn taken(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match (entry.file_type(), entry.metadata()) {
        (Ok(kind), _) if kind.is_dir() => taken(&entry.path()),
        (Ok(kind), Ok(data)) if kind.is_file() => data.blocks() * 512,
        _ => 0,
    });
    bytes.sum()
}

/// Memory of the machine, or the least limit of a control group around us.
pub fn memory() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = group_files(&groups)
        .into_iter()
        .filter_map(|file| std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u64>().ok()));
    machine.into_iter().chain(limits).filter(|bytes| *bytes > 0).min()
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files that may hold a limit: of our group and of all groups around it, version 2 and version 1.
fn group_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            controllers if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for around in Path::new(group).ancestors() {
            let around = around.to_string_lossy();
            files.push(format!("{root}{}/{name}", around.trim_end_matches('/')));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cache_holds_is_its_own_to_use() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bodies")).unwrap();
        std::fs::write(folder.path().join("bodies/one"), vec![1; 1 << 20]).unwrap();
        std::fs::write(folder.path().join("mark"), "x").unwrap();
        assert!((1 << 20..2 << 20).contains(&taken(folder.path())), "{}", taken(folder.path()));
        assert_eq!(taken(&folder.path().join("nowhere")), 0);
    }

    #[test]
    fn defaults_take_a_share_up_to_a_bound() {
        assert_eq!(disk_bytes(Some(6_000_000_000)), 3_000_000_000);
        assert_eq!(disk_bytes(Some(600_000_000_000)), DISK_MOST_BYTES);
        assert_eq!(memory_bytes(Some(2 << 30)), 512 << 20);
        assert_eq!(memory_bytes(Some(64 << 30)), MEMORY_MOST_BYTES);
    }

    #[test]
    fn memory_and_control_groups_are_read() {
        assert_eq!(mem_total("MemTotal:       16318480 kB\nMemFree: 1 kB\n"), Some(16_318_480 * 1024));
        assert_eq!(
            group_files("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"]
        );
        assert_eq!(group_files("5:cpu:/x\n4:memory:/\n"), ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
        assert!(memory().is_none_or(|bytes| bytes > 0));
    }

    #[test]
    fn free_space_is_told_for_folders_that_do_not_exist_yet() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        assert_eq!(disk_free(&folder.path().join("a/b")).is_some(), disk_free(folder.path()).is_some());
    }
}
