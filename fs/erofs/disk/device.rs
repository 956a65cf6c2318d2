// SPDX-License-Identifier: GPL-2.0

//! The device table: where data lies that is not in the primary device.

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::FromBytes as _;
use zerocopy_derive::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::super_block::until_nul;
use crate::{Error, Result, SuperBlock};

/// Size of a slot of the device table in bytes.
pub const DEVICE_SLOT_SIZE: usize = 128;

/// A slot of the device table as it is on disk.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawDeviceSlot {
    /// Offset 0: what the device is, for example a digest or a file name, padded with NULs.
    tag: [u8; 64],
    /// Offset 64: size of the device in blocks.
    blocks: U32,
    /// Offset 68: the device's first block in the unified address space of device 0, or 0 if it is
    /// not in there.
    mapped: U32,
    /// Offset 72: bits 32 to 47 of `blocks` in a 48-bit image.
    blocks_high: U16,
    /// Offset 74: bits 32 to 47 of `mapped` in a 48-bit image.
    mapped_high: U16,
    /// Offset 76: reserved.
    _reserved: [u8; 52],
}

const _: () = assert!(size_of::<RawDeviceSlot>() == DEVICE_SLOT_SIZE);

/// A device besides the primary one.
#[derive(Clone, Debug)]
pub struct DeviceSlot {
    tag: [u8; 64],
    blocks: u64,
    mapped: u64,
}

impl DeviceSlot {
    /// Reads a slot from its [`DEVICE_SLOT_SIZE`] bytes; see [`SuperBlock::device_slot_offset`].
    pub fn parse(super_block: &SuperBlock, bytes: &[u8]) -> Result<Self> {
        let (raw, _) = RawDeviceSlot::ref_from_prefix(bytes)
            .map_err(|_| Error::Corrupt("device slot: too short"))?;
        let number = |low: U32, high: U16| {
            let high = if super_block.has_48bit_blocks() {
                u64::from(high.get()).wrapping_shl(32)
            } else {
                0
            };
            u64::from(low.get()) | high
        };
        Ok(DeviceSlot {
            tag: raw.tag,
            blocks: number(raw.blocks, raw.blocks_high),
            mapped: number(raw.mapped, raw.mapped_high),
        })
    }

    /// What the device is: up to 64 bytes, none if the image does not tell.
    pub fn tag(&self) -> &[u8] {
        until_nul(&self.tag)
    }

    /// Size of the device in blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// First block of the device in the unified address space of device 0, `None` if it is not in
    /// there.
    pub fn mapped(&self) -> Option<u64> {
        (self.mapped != 0).then_some(self.mapped)
    }
}

/// An address as files use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// 0 is the unified address space: the primary device, and other devices that are mapped into
    /// it. `n` is the device of slot `n - 1`.
    pub device: u16,
    /// Byte offset, a multiple of the block size.
    pub start: u64,
}

/// A place on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// 0 is the primary device, `n` is the device of slot `n - 1`.
    pub device: u16,
    /// Byte offset on that device.
    pub start: u64,
    /// How many bytes from `start` on are there: up to the end of the device, or up to where, in
    /// the unified address space, another device begins that comes first. Never 0. The end of the
    /// primary device is not known here, and is [`u64::MAX`].
    pub len: u64,
}

/// Finds the device on which an address lies. `slots` is the whole device table, in order.
///
/// Where devices overlap in the unified address space, the first one of the table counts, for each
/// byte by itself: so it has one place, wherever the range begins that it is asked for in.
///
/// # Errors
///
/// The device does not exist, or ends before the address.
pub fn resolve(super_block: &SuperBlock, slots: &[DeviceSlot], address: Address) -> Result<Place> {
    const BEYOND: Error = Error::Corrupt("block address: beyond its device");

    // 48-bit block numbers and block sizes of up to 4096 bytes: nothing is lost.
    let bytes = |blocks: u64| blocks.wrapping_shl(super_block.block_bits());

    if let Some(index) = address.device.checked_sub(1) {
        let slot = slots
            .get(usize::from(index))
            .ok_or(Error::Corrupt("device id: not in the device table"))?;
        return match bytes(slot.blocks()).checked_sub(address.start) {
            None | Some(0) => Err(BEYOND),
            Some(len) => Ok(Place {
                device: address.device,
                start: address.start,
                len,
            }),
        };
    }

    let mut len = u64::MAX.checked_sub(address.start).ok_or(BEYOND)?;
    // An open range would overflow behind the last of 65535 devices.
    for (device, slot) in (1..=u16::MAX).zip(slots) {
        let Some(mapped) = slot.mapped().map(bytes) else {
            continue;
        };
        match address.start.checked_sub(mapped) {
            // The device begins after the address, and ends what can be there.
            None => len = len.min(mapped.saturating_sub(address.start)),
            Some(start) => match bytes(slot.blocks()).checked_sub(start) {
                None | Some(0) => (),
                Some(left) => {
                    return Ok(Place {
                        device,
                        start,
                        len: left.min(len),
                    })
                }
            },
        }
    }
    if len == 0 {
        return Err(BEYOND);
    }
    Ok(Place {
        device: 0,
        start: address.start,
        len,
    })
}

/// The same for an image whose devices were all put together into the primary one, each where the
/// table says that its place in the unified address space is.
///
/// # Errors
///
/// The device does not exist, has no place in there, or ends before the address.
pub fn resolve_flat(
    super_block: &SuperBlock,
    slots: &[DeviceSlot],
    address: Address,
) -> Result<Place> {
    const BEYOND: Error = Error::Corrupt("block address: beyond its device");

    if address.device == 0 {
        return match u64::MAX.checked_sub(address.start) {
            None | Some(0) => Err(BEYOND),
            Some(len) => Ok(Place {
                device: 0,
                start: address.start,
                len,
            }),
        };
    }
    let place = resolve(super_block, slots, address)?;
    let slot = address
        .device
        .checked_sub(1)
        .and_then(|index| slots.get(usize::from(index)));
    let mapped = slot
        .and_then(DeviceSlot::mapped)
        .ok_or(Error::Corrupt("device table: no place for a device"))?;
    let start = mapped
        .checked_shl(super_block.block_bits())
        .and_then(|mapped| mapped.checked_add(place.start))
        .ok_or(BEYOND)?;
    Ok(Place {
        device: 0,
        start,
        len: place.len,
    })
}
