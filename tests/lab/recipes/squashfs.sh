# shellcheck shell=bash
# Sourced by the recipes of SquashFS images.
# shellcheck source=SCRIPTDIR/tree.sh

# pack_squashfs FROM OPTION...: make $OUT/made. With the lab's own mksquashfs: the real machine needs none.
pack_squashfs() {
    local from=$1 tree=$LAB/tools
    shift
    mount --bind "$OUT" "$tree/mnt"
    mount --bind "$from" "$tree/media"
    in_tree "$tree" mksquashfs /media /mnt/made -quiet -no-progress "$@"
    umount "$tree/media" "$tree/mnt"
    chmod 644 "$OUT/made"
}
