use super::*;

/// A tree drawn as `folder/name` paths with inode numbers; folders end with a slash.
fn tree(names: &[(&str, u64)]) -> Tree {
    let root = inode(1);
    let mut tree = Tree { root, folders: BTreeMap::from([(root, Table::new())]) };
    let mut folders = BTreeMap::from([(String::new(), root)]);
    for (path, number) in names {
        let (path, target) = match path.strip_suffix('/') {
            Some(folder) => (folder, Target::Folder),
            None => (*path, Target::File),
        };
        if target == Target::Folder {
            folders.insert(path.to_owned(), inode(*number));
            tree.folders.insert(inode(*number), Table::new());
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let entry = Entry { inode: inode(*number), mode: 0o600, target };
        tree.folders.get_mut(&folders[folder]).unwrap().insert(name.into(), entry);
    }
    tree
}

fn inode(number: u64) -> Inode {
    format!("{number:x}.0").parse().unwrap()
}

/// The paths that the root leads to.
fn paths(tree: &Tree) -> Vec<(String, u64)> {
    fn walk(tree: &Tree, folder: Inode, above: &str, found: &mut Vec<(String, u64)>) {
        for (name, entry) in tree.entries(folder) {
            let path = format!("{above}{}", name.to_str().unwrap());
            let number = entry.inode.to_string();
            let number = u64::from_str_radix(number.split_once('.').unwrap().0, 16).unwrap();
            if entry.target == Target::Folder {
                found.push((format!("{path}/"), number));
                walk(tree, entry.inode, &format!("{path}/"), found);
            } else {
                found.push((path, number));
            }
        }
    }
    let mut found = Vec::new();
    walk(tree, tree.root, "", &mut found);
    found
}

#[track_caller]
fn assert_paths(tree: &Tree, expected: &[(&str, u64)]) {
    let expected: Vec<_> = expected.iter().map(|(path, number)| ((*path).to_owned(), *number)).collect();
    assert_eq!(paths(tree), expected);
}

#[test]
fn the_sync_of_a_new_file_names_it_and_the_folders_above_but_nothing_beside_it() {
    let live = tree(&[("a/", 2), ("a/b/", 3), ("a/b/new", 4), ("a/b/other", 5), ("beside", 6)]);
    let mut durable = tree(&[]);
    durable.sync_file(&live, inode(4));
    assert_paths(&durable, &[("a/", 2), ("a/b/", 3), ("a/b/new", 4)]);
}

#[test]
fn the_sync_of_a_renamed_file_completes_the_rename() {
    let mut durable = tree(&[("current", 2), ("current.new", 3)]);
    durable.sync_file(&tree(&[("current", 3)]), inode(3));
    assert_paths(&durable, &[("current", 3)]);
}

#[test]
fn the_sync_of_an_unlinked_file_leaves_its_old_name() {
    let mut durable = tree(&[("journal", 2)]);
    durable.sync_file(&tree(&[]), inode(2));
    assert_paths(&durable, &[("journal", 2)]);
}

#[test]
fn the_sync_of_a_folder_takes_its_entries_and_only_its_own() {
    let live = tree(&[("a/", 2), ("a/new", 3), ("b/", 4), ("b/new", 5)]);
    let before = tree(&[("a/", 2), ("a/old", 6), ("b/", 4), ("b/old", 7)]);

    let mut durable = before.clone();
    durable.sync_folder(&live, inode(2), Rule::Ext4);
    assert_paths(&durable, &[("a/", 2), ("a/new", 3), ("b/", 4), ("b/old", 7)]);

    let mut durable = before;
    durable.sync_folder(&live, inode(4), Rule::Strict);
    assert_paths(&durable, &[("a/", 2), ("a/old", 6), ("b/", 4), ("b/new", 5)]);
}

#[test]
fn a_new_folder_is_reached_by_its_own_sync_only_under_the_ext4_rule() {
    let live = tree(&[("a/", 2), ("a/new", 3)]);

    let mut durable = tree(&[]);
    durable.sync_folder(&live, inode(2), Rule::Ext4);
    assert_paths(&durable, &[("a/", 2), ("a/new", 3)]);

    let mut durable = tree(&[]);
    durable.sync_folder(&live, inode(2), Rule::Strict);
    assert_paths(&durable, &[]);
    durable.sync_folder(&live, inode(1), Rule::Strict);
    assert_paths(&durable, &[("a/", 2), ("a/new", 3)]);
}

#[test]
fn a_new_folder_is_empty_until_it_is_synced() {
    let live = tree(&[("a/", 2), ("a/new", 3)]);
    let mut durable = tree(&[]);
    durable.sync_folder(&live, inode(1), Rule::Strict);
    assert_paths(&durable, &[("a/", 2)]);
}

#[test]
fn a_rename_between_folders_is_whole_whichever_folder_is_synced() {
    let before = tree(&[("a/", 2), ("a/file", 4), ("b/", 3)]);
    let live = tree(&[("a/", 2), ("b/", 3), ("b/moved", 4)]);
    for rule in [Rule::Ext4, Rule::Strict] {
        for folder in [2, 3] {
            let mut durable = before.clone();
            durable.sync_folder(&live, inode(folder), rule);
            assert_paths(&durable, &[("a/", 2), ("b/", 3), ("b/moved", 4)]);
        }
    }
}

#[test]
fn a_renamed_folder_takes_its_durable_entries_with_it() {
    let mut durable = tree(&[("a/", 2), ("a/file", 3)]);
    let live = tree(&[("b/", 2), ("b/file", 3), ("b/unsynced", 4)]);
    durable.sync_folder(&live, inode(1), Rule::Ext4);
    assert_paths(&durable, &[("b/", 2), ("b/file", 3)]);
}

#[test]
fn a_hard_link_stays_where_the_sync_did_not_reach() {
    let live = tree(&[("a/", 2), ("a/one", 4), ("b/", 3), ("b/two", 4)]);
    let mut durable = tree(&[("a/", 2), ("a/one", 4), ("b/", 3)]);
    durable.sync_folder(&live, inode(3), Rule::Strict);
    assert_paths(&durable, &[("a/", 2), ("a/one", 4), ("b/", 3), ("b/two", 4)]);
    durable.sync_folder(&tree(&[("a/", 2), ("b/", 3), ("b/two", 4)]), inode(2), Rule::Strict);
    assert_paths(&durable, &[("a/", 2), ("b/", 3), ("b/two", 4)]);
}

#[test]
fn removed_folders_are_forgotten() {
    let live = tree(&[]);
    let mut durable = tree(&[("a/", 2), ("a/b/", 3), ("a/b/file", 4)]);
    durable.sync_folder(&live, inode(1), Rule::Ext4);
    durable.forget_removed(&live);
    assert_eq!(durable, live);
}

#[test]
fn a_tree_is_read_back_as_it_was_written() {
    let mut written = tree(&[("a/", 2), ("a/b c ", 3), ("d/", 4)]);
    let link = Target::Link(OsString::from_vec(vec![b'x', 0xff, b' ']));
    let name = OsString::from_vec(vec![0xff, b'%']);
    let root = written.folders.get_mut(&inode(1)).unwrap();
    root.insert(name, Entry { inode: inode(5), mode: 0o777, target: link });
    assert_eq!(Tree::decode(&written.encode().unwrap()).unwrap(), written);
}

#[test]
fn what_is_no_tree_is_refused() {
    let whole = tree(&[("a/", 2), ("a/file", 3)]).encode().unwrap();
    let text = String::from_utf8(whole).unwrap();
    for broken in [
        "",
        "root\n",
        "root 1.0",
        "root 1.0\nfile 600 3.0 early\n",
        &text.replace("root", "boot"),
        &text.replace("file 600", "pipe 600"),
        &text.replace("file 600", "file 900"),
        &text.replace("file 600 3.0", "file 600 3"),
        &text.replace("file 600 3.0 file", "link 600 3.0 file"),
    ] {
        assert!(Tree::decode(broken.as_bytes()).is_err(), "{broken:?}");
    }
}

#[test]
fn a_name_with_a_line_feed_is_refused() {
    assert!(tree(&[("a\nb", 2)]).encode().is_err());
}

#[test]
fn a_folder_is_read_with_everything_below() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/file"), b"x").unwrap();
    std::os::unix::fs::symlink("sub/file", folder.path().join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();

    let tree = Tree::read(folder.path()).unwrap();
    let names: Vec<_> =
        tree.names().map(|(_, name, entry)| (name.to_str().unwrap(), &entry.target)).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.contains(&("sub", &Target::Folder)));
    assert!(names.contains(&("file", &Target::File)));
    assert!(names.contains(&("link", &Target::Link("sub/file".into()))));
    assert_eq!(tree.root(), Node::at(folder.path()).unwrap().inode);
}
