//! WebAssembly byte by byte: what no text can say, or would be long in saying.

pub(super) const MODULE: &[u8] = b"\0asm\x01\0\0\0";
pub(super) const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// A number as a file has it.
pub(super) fn leb(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

/// The index of a type: signed, and so one bit longer.
pub(super) fn type_index(number: usize) -> Vec<u8> {
    let mut out = leb(number);
    if number >> (7 * out.len() - 1) & 1 == 1 {
        *out.last_mut().unwrap() |= 0x80;
        out.push(0);
    }
    out
}

pub(super) fn name(text: impl AsRef<[u8]>) -> Vec<u8> {
    [leb(text.as_ref().len()), text.as_ref().to_vec()].concat()
}

/// A list of things that differ by their number.
pub(super) fn list(count: usize, item: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let mut out = leb(count);
    (0..count).for_each(|number| out.extend(item(number)));
    out
}

pub(super) fn section(id: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![id], name(content)].concat()
}

/// A file, by its header and its sections.
pub(super) fn file(header: &[u8], sections: &[Vec<u8>]) -> Vec<u8> {
    [header.to_vec(), sections.concat()].concat()
}

/// A file with more sections at its end.
pub(super) fn with(mut file: Vec<u8>, sections: &[Vec<u8>]) -> Vec<u8> {
    file.extend(sections.concat());
    file
}

/// How many sections of a kind a file has.
pub(super) fn count_of(file: &[u8], id: u8) -> usize {
    let mut count = 0;
    let mut at = 8;
    while at < file.len() {
        count += usize::from(file[at] == id);
        at += 1;
        let (mut size, mut shift) = (0, 0);
        loop {
            size |= usize::from(file[at] & 0x7f) << shift;
            (at, shift) = (at + 1, shift + 7);
            if file[at - 1] < 0x80 {
                break;
            }
        }
        at += size;
    }
    count
}

/// Numbers that look like chance and are the same each time.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    /// Below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}
