//! Merkle trees as in RFC 9162 section 2.1, over prekey leaves.

use sha2::{Digest as _, Sha256};

use crate::id::Digest;

/// The root of the tree over `leaves` (RFC 9162 section 2.1.1).
#[must_use]
pub fn root<T: AsRef<[u8]>>(leaves: &[T]) -> Digest {
    match leaves {
        [] => Digest(Sha256::digest([]).into()),
        [leaf] => leaf_hash(leaf.as_ref()),
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// The inclusion proof of leaf `index` (RFC 9162 section 2.1.3.1), or nothing when there is no such leaf.
#[must_use]
pub fn path<T: AsRef<[u8]>>(leaves: &[T], index: usize) -> Option<Vec<Digest>> {
    if index >= leaves.len() {
        return None;
    }
    if leaves.len() == 1 {
        return Some(Vec::new());
    }
    let middle = split(leaves.len());
    let (left, right) = leaves.split_at(middle);
    let (mut proof, sibling) = if index < middle {
        (path(left, index)?, root(right))
    } else {
        (path(right, index - middle)?, root(left))
    };
    proof.push(sibling);
    Some(proof)
}

/// Whether `leaf` is number `index` of the `size` leaves under `root` (RFC 9162 section 2.1.3.2).
#[must_use]
pub fn verify(leaf: &[u8], index: u64, size: u64, proof: &[Digest], root: &Digest) -> bool {
    if index >= size {
        return false;
    }
    let (mut position, mut last, mut hash) = (index, size - 1, leaf_hash(leaf));
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if position % 2 == 1 || position == last {
            hash = node_hash(sibling, &hash);
            while position % 2 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// The largest power of two below `length`, which is at least 2.
fn split(length: usize) -> usize {
    length.next_power_of_two() / 2
}

fn leaf_hash(leaf: &[u8]) -> Digest {
    Digest(Sha256::new().chain_update([0]).chain_update(leaf).finalize().into())
}

fn node_hash(left: &Digest, right: &Digest) -> Digest {
    Digest(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    /// The test tree of Certificate Transparency (google/certificate-transparency, merkletree tests).
    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];

    fn leaves() -> Vec<Vec<u8>> {
        LEAVES.iter().map(|hex| HEXLOWER.decode(hex.as_bytes()).unwrap()).collect()
    }

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let leaves = leaves();
        for (count, expected) in [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ] {
            assert_eq!(root(&leaves[..count]).to_string(), expected, "{count} leaves");
        }
    }

    #[test]
    fn each_leaf_verifies_at_its_place_only() {
        for size in 1..=33_usize {
            let leaves: Vec<_> = (0..size).map(|n| n.to_be_bytes()).collect();
            let root = root(&leaves);
            for (index, leaf) in leaves.iter().enumerate() {
                let proof = path(&leaves, index).unwrap();
                for claimed in 0..=size {
                    let verified = verify(leaf, claimed as u64, size as u64, &proof, &root);
                    assert_eq!(verified, claimed == index, "leaf {index} of {size} as {claimed}");
                }
                let mut longer = proof.clone();
                longer.push(root);
                assert!(!verify(leaf, index as u64, size as u64, &longer, &root));
                if let Some((_, shorter)) = proof.split_last() {
                    assert!(!verify(leaf, index as u64, size as u64, shorter, &root));
                }
            }
            assert_eq!(path(&leaves, size), None);
        }
    }
}
