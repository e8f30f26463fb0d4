# ==============================================================================================
# Functions, the same in every script. What this one does is in environment and plan, below them.
#
# A container path is absolute and means what it means inside the container. None of them reaches
# the kernel before resolve() has followed its symbolic links inside the container's root, so an
# image can't lead a mount or a file out of itself. Whoever owns the image could exchange a
# directory for a link between that look and the mount, so check_mounts() looks at the result.
#
# Functions return values in variables of main (bash has dynamic scope), so that nothing here ends
# up in, or changes, the environment of the command.
# ==============================================================================================

say() { printf 'cdi-hpc: %s\n' "$1" >&2; }

# One line of printable characters, whatever a path holds: that is what %q is for.
die() { # FORMAT [VALUE...]
  local message format=$1
  shift
  # shellcheck disable=SC2059 # the formats are constants of this script
  printf -v message "$format" "$@"
  say "$message"
  exit 125
}

refuse_what_is_refused() {
  local refusal text=''
  for refusal in "${cdi_hpc_refusals[@]}"; do text+="; $refusal"; done
  [[ -z $text ]] || die '%s' "${text#; }"
}

need() { # PROGRAM PACKAGE
  hash -- "$1" 2>/dev/null || die '%q is not on this machine: install %s' "$1" "$2"
}

# --- Looking into the container that is being put together -------------------------------------

# owner: the mount that holds a canonical container path; a later one covers an earlier one.
owner_of() { # REAL
  for owner in "${latest_first[@]}"; do
    [[ $1/ != "${mount_at[owner]}"/* ]] || return 0
  done
}

# kind: d directory, l symbolic link, f anything else, '' nothing; here: its path on the host.
lookup() { # REAL
  kind=${seen[$1]-} here=${seen_here[$1]-}
  [[ -z $kind ]] || return 0
  owner_of "$1"
  here=${mount_source[owner]%/}${1#"${mount_at[owner]}"}
  if [[ -L $here ]]; then
    kind=l
  elif [[ -d $here ]]; then
    kind=d
  elif [[ -e $here ]]; then
    kind=f
  else
    here=''
    return 0
  fi
  remember "$1" "$kind" "$here"
}

remember() { # REAL KIND HERE
  seen[$1]=$2
  seen_here[$1]=$3
}

# A mount hides what was known below its path, the mounts there included.
forget_below() { # REAL
  local path
  directories_resolved=()
  for path in "${!seen[@]}"; do
    [[ $path != "$1"/* ]] || seen[$path]='' link_text[$path]=''
  done
  for path in "${!leads_to_mount[@]}"; do
    [[ $path != "$1"/* ]] || leads_to_mount[$path]=''
  done
}

# Follows a container path as the kernel would with the container's root as /: an absolute link
# starts again there, .. stops there, and 40 links are the most (path_resolution(7)). Components
# that don't exist stay as they are. Sets real ('' is the root itself), kind and here.
resolve() { # PATH [keep: a link as the last component is not followed]
  local left=$1 parent=${1%/*} name links=0 last_is_link=''
  real='' kind=d here=${mount_source[0]}
  if [[ -n ${directories_resolved[$parent/]-} ]]; then
    real=${directories_resolved[$parent/]} left=${1##*/}
  fi
  while [[ -n $left ]]; do
    name=${left%%/*}
    if [[ $name == "$left" ]]; then left=''; else left=${left#*/}; fi
    case $name in
      '' | .) continue ;;
      ..)
        real=${real%/*} kind=d
        continue
        ;;
    esac
    if [[ $kind == f ]]; then
      leads_nowhere '%q: %q is no directory in the container' "$1" "$real"
      return
    fi
    # Most paths of a plan are in a few directories.
    [[ -n $left$last_is_link || $kind != d || -z $real ]] || directories_resolved[$parent/]=$real
    lookup "$real/$name"
    if [[ $kind != l || (-z $left && ${2-} == keep) ]]; then
      real=$real/$name
      continue
    fi
    if ((++links > 40)); then
      leads_nowhere '%q: more than 40 symbolic links on the way' "$1"
      return
    fi
    read_link "$real/$name"
    if [[ -z $text ]]; then
      leads_nowhere 'the link %q can not be read' "$1"
      return
    fi
    [[ $text != /* ]] || real=''
    [[ -n $left ]] || last_is_link=yes
    left=$text/$left kind=d
  done
  if [[ -n $real ]]; then lookup "$real"; else kind=d here=${mount_source[0]}; fi
}

# A path that matters ends the script. Of others, nothing is there.
leads_nowhere() { # FORMAT VALUE...
  [[ -n $if_it_is_there ]] || die "$@"
  real='' kind='' here=''
}

# text: what the link at a canonical path holds, '' if it can't be read.
read_link() { # REAL
  text=${link_text[$1]-}
  [[ -z $text ]] || return 0
  case ${seen_here[$1]} in
    # It would name the process that reads it.
    /proc/self) text=$BASHPID ;;
    *) IFS= read -r -d '' text < <(readlink -z -- "${seen_here[$1]}") ;;
  esac
  link_text[$1]=$text
}

# text: what a regular file of the container holds, up to a NUL byte; '' without one that can be
# read. An image could have a FIFO there, or a file without end.
read_text() { # PATH [the most BYTES]
  resolve "$1"
  text=''
  [[ $kind == f && -f $here && -r $here ]] || return 0
  IFS= read -r -d '' -n "${2:-16777216}" text <"$here"
  return 0
}

# --- The stage: entries that the image lacks ---------------------------------------------------

# Notes that a missing path is to be made, and the directories above it. Sets where, its path in
# the stage.
place() { # REAL d|f|l
  local parent=${1%/*} path top
  owner_of "$1"
  top=${mount_at[owner]}
  [[ -n ${mount_additions[owner]} ]] ||
    die 'the container has no %q, and nothing can be added below %q' "$1" "$top"
  may_be_searched "$top" "${mount_source[owner]}"
  where=${mount_additions[owner]}${1#"$top"}
  new_directories+=("${where%/*}")
  while [[ $parent == "$top"/* ]]; do
    path=${mount_additions[owner]}${parent#"$top"}
    [[ -z ${placed_in[$path]-} ]] || break
    placed_in[$path]=yes
    lookup_in "$parent" "$path"
    parent=${parent%/*}
  done
  [[ ${mount_additions[owner]} == "${mount_source[owner]}" ]] ||
    copy_mode[${mount_additions[owner]}]=${mount_source[owner]}
  remember "$1" "$2" "$where"
}

# A directory above a new entry: one of ours if it is missing, else its mode has to be copied,
# because the stage's directory is the one that is seen.
lookup_in() { # REAL STAGED
  local owner kind here
  lookup "$1"
  if [[ -z $kind ]]; then
    remember "$1" d "$2"
  elif [[ $here != "$2" ]]; then
    may_be_searched "$1" "$here"
    copy_mode[$2]=$here
  fi
}

# What is in a closed directory looks as if it were not there.
may_be_searched() { # REAL HERE
  [[ -x $2 ]] || die '%q can not be searched: permission denied at %q' "${1:-/}" "$2"
}

# Makes what place() noted.
make_stage() {
  local path
  if [[ ${#new_directories[@]} -gt 0 ]]; then
    mkdir -p -- "${new_directories[@]}" || die 'can not make a directory; see the line above'
  fi
  for path in "${new_files[@]}"; do
    : >"$path" || die 'can not make %q' "$path"
  done
  # A process each, so all at once.
  for path in "${!new_links[@]}"; do
    ln -s -T -- "${new_links[$path]}" "$path" &
  done
  wait
  for path in "${!new_links[@]}"; do
    [[ -L $path ]] || die 'can not make the link %q' "$path"
  done
  copy_modes
}

copy_modes() {
  local i staged=("${!copy_mode[@]}") originals=() modes=()
  [[ ${#staged[@]} -gt 0 ]] || return 0
  for i in "${!staged[@]}"; do originals+=("${copy_mode[${staged[i]}]}"); done
  mapfile -t modes < <(stat -L -c %a -- "${originals[@]}")
  for i in "${!staged[@]}"; do
    [[ ${modes[i]-} == 755 ]] || chmod "${modes[i]-}" -- "${staged[i]}" ||
      die '%q can not be given the mode of %q' "${staged[i]}" "${originals[i]}"
  done
}

# --- The steps of a plan -----------------------------------------------------------------------

add_mount() { # REAL SOURCE file|directory OPTIONS ADDITIONS
  mount_at+=("$1")
  mount_source+=("$2")
  mount_kind+=("$3")
  mount_options+=("$4")
  mount_additions+=("$5")
  [[ $3 == file ]] || latest_first=("$((${#mount_at[@]} - 1))" "${latest_first[@]}")
  [[ -n $1 ]] || return 0
  if [[ $3 == file ]]; then
    remember "$1" f "$2"
  else
    forget_below "$1"
    remember "$1" d "$2"
  fi
  local path=$1
  leads_to_mount[$path]=''
  while [[ -n $path && -z ${leads_to_mount[$path]-} ]]; do
    leads_to_mount[$path]=$((${#mount_at[@]} - 1))
    path=${path%/*}
  done
}

# real: where TARGET is. A link there is followed inside the root, as podman and runc do; what is
# missing is made in the stage.
mount_point() { # TARGET f|d [cover: a link there is covered, wherever it leads]
  resolve "$1" "${3:+keep}"
  refuse_root "$1"
  if [[ $kind == l ]]; then
    make_room
    kind=''
  fi
  case $kind in
    "$2") ;;
    '')
      place "$real" "$2"
      if [[ $2 == d ]]; then new_directories+=("$where"); else new_files+=("$where"); fi
      ;;
    d) die '%q is a directory in the container, but a file is to be mounted there' "$1" ;;
    *) die '%q is not a directory in the container, but one is to be mounted there' "$1" ;;
  esac
}

refuse_root() { # TARGET
  [[ -n $real ]] || die 'nothing can be mounted over the root of the container (%q)' "$1"
}

# The host's SOURCE is seen at TARGET. A missing mount point, link or file below a directory that
# is mounted goes over it in a layer of its own.
bind() { # file|device|socket|directory SOURCE TARGET OPTIONS
  [[ -e $2 ]] || die '%q is not on this machine: is the spec out of date, or the driver not loaded?' "$2"
  if [[ $1 != directory ]]; then
    mount_point "$3" f
    add_mount "$real" "$2" file "$4" ''
  else
    mount_point "$3" d
    add_mount "$real" "$2" directory "$4" "$work/additions/${#mount_at[@]}"
  fi
}

# The same for the host's own /proc, /sys, /dev: nothing can be added to them.
bind_as_is() { # SOURCE TARGET
  mount_point "$2" d
  add_mount "$real" "$1" directory rbind ''
}

# A new file system. It is mounted aside at once, so that entries can be made in it; it becomes
# read-only in its place.
filesystem() { # TYPE SOURCE TARGET OPTIONS
  local aside=$work/filesystems/${#mount_at[@]} additions='' option options='' closed=rbind asked=()
  mount_point "$3" d
  IFS=, read -r -a asked <<<"$4"
  for option in "${asked[@]}"; do
    [[ $option == ro ]] || options+=,$option
    # A remount has to repeat what is to stay.
    case $option in ro | nosuid | nodev | noexec | nosymfollow) closed+=,$option ;; esac
  done
  mkdir -p -- "$aside" || die 'can not make %q' "$aside"
  mount -n -t "$1" ${options:+-o "${options#,}"} -- "$2" "$aside" || die 'mounting a %q for %q failed' "$1" "$3"
  [[ $1 != tmpfs ]] || additions=$aside
  [[ $closed, == *,ro,* ]] || closed=rbind
  add_mount "$real" "$aside" directory "$closed" "$additions"
}

# PATH is a symbolic link that holds TEXT; nothing is done where it already is.
link() { # PATH TEXT
  local i
  resolve "$1" keep
  [[ -n $real ]] || die 'the root of the container can not be a link (%q)' "$1"
  if [[ $kind == l ]]; then
    read_link "$real"
    [[ $text != "$2" ]] || return 0
  fi
  i=${leads_to_mount[$real]-}
  [[ -z $i ]] || die 'the link %q (to %q) and the mount of %q at %q contradict each other' \
    "$1" "$2" "${mount_source[i]}" "${mount_at[i]}"
  [[ $kind != d ]] || die '%q is a directory in the container, but a link (to %q) is to be made there' "$1" "$2"
  make_room
  place "$real" l
  new_links[$where]=$2
  link_text[$real]=$2
}

# In a layer a new link covers what is there; in a root that is written to, or in one of our own
# file systems, it has to go first.
make_room() {
  owner_of "$real"
  [[ -n $kind && ${mount_additions[owner]} == "${mount_source[owner]}" ]] || return 0
  rm -f -- "$here" || die 'can not replace %q' "$real"
}

# PATH is a read-only file with this content, escaped as for printf %b.
file() { # PATH MODE CONTENT
  local aside=$work/files/${#mount_at[@]}
  printf %b "$3" >"$aside" || die 'can not write %q' "$aside"
  chmod "$2" -- "$aside" || die 'can not set the mode of %q' "$aside"
  bind file "$aside" "$1" bind,ro,nosuid,nodev
}

# --- Mounting ----------------------------------------------------------------------------------

# Mounts are listed as in fstab(5) and made by one mount(8): a process costs a millisecond, a mount
# some microseconds.
queue() { # SOURCE TARGET OPTIONS
  local line=''
  fstab_field "$1"
  line=$field
  fstab_field "$2"
  printf '%s %s none %s 0 0\n' "$line" "$field" "$3" >>"$work/fstab" || die 'can not write %q' "$work/fstab"
}

fstab_field() { # TEXT
  local left=$1 character
  field=$1
  [[ $left == *[$' \t\n\r\\#"\'']* ]] || return 0
  field=''
  while [[ -n $left ]]; do
    character=${left:0:1} left=${left:1}
    if [[ $character == [$' \t\n\r\\#"\''] ]]; then printf -v character '\\%03o' "'$character"; fi
    field+=$character
  done
}

make_queued() {
  [[ -s $work/fstab ]] || return 0
  mount -n -a -c -T "$work/fstab" >&2 || die 'the kernel refused a mount; see the lines above'
  : >"$work/fstab"
}

# The host's mounts; mountinfo writes odd bytes as \ooo (proc_pid_mountinfo(5)).
read_host_mounts() {
  local line top point options lines=()
  mapfile -t lines </proc/self/mountinfo || die 'the mounts of this machine can not be read'
  for line in "${lines[@]}"; do
    IFS=' ' read -r _ _ _ top point options _ <<<"$line"
    if [[ $top$point == *\\* ]]; then printf -v top %b "$top"; printf -v point %b "$point"; fi
    host_mount_at+=("${point%/}")
    top_of_mount[$point]=$top
    host_mount_options+=("$options")
  done
}

has_mounts_below() { # DIRECTORY
  local point
  for point in "${host_mount_at[@]}"; do
    [[ $point != "${1%/}"/?* ]] || return 0
  done
  return 1
}

# flags: of the mount that holds a directory. A remount in a user namespace has to repeat them, or
# the kernel says EPERM (mount_namespaces(7)).
flags_of_mount() { # DIRECTORY
  local i best='' option
  flags=''
  for i in "${!host_mount_at[@]}"; do
    [[ $1/ == "${host_mount_at[i]}"/* && ${#host_mount_at[i]} -ge ${#best} ]] || continue
    best=${host_mount_at[i]} flags=''
    for option in ${host_mount_options[i]//,/ }; do
      case $option in ro | nosuid | nodev | noexec | noatime | nodiratime | relatime) flags+=,$option ;; esac
    done
  done
  # It has no word for strictatime, but mount(2) takes relatime for granted.
  case $flags, in *,relatime,* | *,noatime,*) ;; *) flags+=,strictatime ;; esac
}

# flags: for a bind of SOURCE where FLAGS are those of its surroundings. A file system that is
# mounted there has flags of its own, and they are locked.
flags_on_mount() { # SOURCE FLAGS
  local option asked=()
  flags=$2
  [[ -n $2 && -n ${top_of_mount[$1]-} ]] || return 0
  for option in ${2//,/ }; do
    case $option in noatime | nodiratime | relatime | strictatime) ;; *) asked+=("$option") ;; esac
  done
  flags_of_mount "$1"
  add_flags "$flags" "${asked[@]}"
}

# flags: FLAGS and the others, each once.
add_flags() { # FLAGS FLAG...
  local flag
  flags=$1
  for flag in "${@:2}"; do [[ $flags, == *,"$flag",* ]] || flags+=,$flag; done
}

# DESTINATION, an empty directory of ours, shows SOURCE with the entries of ADDITIONS over it;
# nothing is made in either of them.
merge() { # ADDITIONS SOURCE DESTINATION FLAGS
  flags_on_mount "$2" "$4"
  set -- "$1" "$2" "$3" "$flags"
  if may_be_layer "$2" "$3" "$4"; then
    overlay "$1" "$2" "$3" && return 0
    [[ $stage != overlay ]] || die 'overlayfs is refused here (%s): use --stage=underlay' "$reason"
    stage=underlay
  fi
  underlay "$@"
}

# One overlay with two read-only layers does it. But the kernel refuses one over a directory that
# has mounts below it, and some kernels refuse it altogether; a layer can't be written to and shows
# no device. With / as the image, what is not software may be the user's to write to.
may_be_layer() { # SOURCE DESTINATION FLAGS
  local top=${1#/}
  [[ $stage != underlay ]] && ! has_mounts_below "$1" || return 1
  if [[ $image == / && $2 == "$root"/* ]]; then
    case ${top%%/*} in bin | etc | lib | lib32 | lib64 | libx32 | opt | sbin | usr) return 0 ;; esac
  fi
  [[ $3, == *,ro,* && $3, == *,nodev,* ]]
}

# The layers get short names first: : , and \ have meanings of their own in lowerdir=.
overlay() { # ADDITIONS SOURCE DESTINATION
  local layers=$work/layers/$((++layer_count))
  mkdir -p -- "$layers/stage" "$layers/image" || die 'can not make %q' "$layers"
  if mount_layers "$1" "$2" "$3" 2>"$work/refusal"; then
    is_of_image "$3" && must_show[$layers/image]=$2
    return 0
  fi
  IFS= read -r reason <"$work/refusal"
  return 1
}

mount_layers() { # ADDITIONS SOURCE DESTINATION
  mount -n -c --bind -- "$1" "$layers/stage" &&
    mount -n -c --bind -- "$2" "$layers/image" &&
    mount -n -c -t overlay -o "lowerdir=$layers/stage:$layers/image" overlay "$3"
}

# The same by hand: what SOURCE has is brought back entry by entry, links copied and the rest
# bound, around the entries of ADDITIONS.
underlay() { # ADDITIONS SOURCE DESTINATION FLAGS
  local entry name copies=() directories=() deeper=()
  if [[ $3 == "$root" ]]; then
    # pivot_root(2) wants a mount.
    mount -n -c --bind -- "$3" "$3" || die 'can not make the underlay'
    root_is_underlay=yes
  fi
  # What can't be listed would be gone without a word.
  [[ -r $2 && -x $2 ]] || die 'nothing can be added to %q: permission denied to read its names' "$2"
  for entry in "$1"/*; do
    name=${entry##*/}
    if [[ -d $entry && ! -L $entry && -d $2/$name && ! -L $2/$name ]]; then
      deeper+=("$name")
    else
      copies+=("$entry")
    fi
  done
  for entry in "${2%/}"/*; do
    name=${entry##*/}
    [[ ! -e $1/$name && ! -L $1/$name ]] || continue
    if [[ -L $entry ]]; then
      copies+=("$entry")
      continue
    elif [[ -d $entry ]]; then
      directories+=("$3/$name")
    elif [[ -e $entry ]]; then
      : >"$3/$name" || die 'can not make %q' "$3/$name"
    else
      continue
    fi
    flags_on_mount "$entry" "$4"
    queue "$entry" "$3/$name" "rbind$flags"
    is_of_image "$3" && must_show[$3/$name]=$entry
  done
  for name in "${deeper[@]}"; do directories+=("$3/$name"); done
  if [[ ${#directories[@]} -gt 0 ]]; then mkdir -- "${directories[@]}" || die 'can not make the underlay'; fi
  if [[ ${#copies[@]} -gt 0 ]]; then
    # Links keep their time, nothing can keep its owner.
    cp -R -P --preserve=mode,timestamps -t "$3" -- "${copies[@]}" || die 'can not make the underlay'
  fi
  for name in "${deeper[@]}"; do merge "$1/$name" "${2%/}/$name" "$3/$name" "$4"; done
  chmod --reference="$2" -- "$3" || die '%q can not be given the mode of %q' "$3" "$2"
}

# Everything that was planned, at $root.
make_mounts() {
  local i source options
  for ((i = 1; i < ${#mount_at[@]}; i++)); do
    source=${mount_source[i]} options=${mount_options[i]}
    if [[ ${mount_additions[i]} == "$work"/additions/* && -d ${mount_additions[i]} ]]; then
      mkdir -p -- "$work/merged/$i" || die 'can not make %q' "$work/merged/$i"
      merge "${mount_additions[i]}" "$source" "$work/merged/$i" "${options#*bind}"
      # Of an underlay, this is about its own directories: what is mounted in them has its own flags.
      add_flags ",ro,nosuid,nodev${options#*bind}"
      source=$work/merged/$i options=rbind$flags
    fi
    queue "$source" "$root${mount_at[i]}" "$options"
    [[ $image == "$root" || -n ${must_show[$root${mount_at[i]}]-} ]] || must_show[$root${mount_at[i]}]=anything
  done
  make_queued
  check_mounts
}

# Whether a destination of merge() shows a part of the image, which may be somebody else's.
is_of_image() { # DESTINATION
  [[ $image != / && $1/ == "$root"/* ]]
}

# Mounts are where they were planned, and show what was planned, even if a directory of the image
# was exchanged for a link in the meantime.
check_mounts() {
  local line top point lines=()
  local -A tops=()
  mapfile -t lines </proc/self/mountinfo || die 'the mounts can not be read'
  for line in "${lines[@]}"; do
    line=${line#* * * } top=${line%% *} line=${line#* }
    point=${line%% *}
    [[ $point == "$work"/* ]] || continue
    if [[ $top$point == *\\* ]]; then printf -v top %b "$top"; printf -v point %b "$point"; fi
    tops[$point]+="$top"$'\n\n'
  done
  for point in "${!must_show[@]}"; do
    top=''
    [[ ${must_show[$point]} == anything ]] || top_of "${must_show[$point]}"
    [[ -n ${tops[$point]-} && (-z $top || $'\n\n'${tops[$point]} == *$'\n\n'"$top"$'\n\n'*) ]] ||
      die 'the image was changed in the meantime: %q is not what was there' "${point#"$root"}"
  done
}

# top: where a path without links is in the file system that it is on.
top_of() { # PATH
  local point=$1
  while [[ -n $point && -z ${top_of_mount[$point]-} ]]; do point=${point%/*}; done
  top=${top_of_mount[${point:-/}]%/}${1#"$point"}
  top=${top:-/}
}

# --- The dynamic loader ------------------------------------------------------------------------

# Libraries in these folders are found first, as the vendor's update-ldcache hook has it.
ldcache() { # FOLDER...
  ldcache_wanted=yes
  local folder
  for folder; do
    [[ $folder == /* && $folder != *[[:cntrl:]#]* ]] || die '%q can not be written in ld.so.conf' "$folder"
    folders+=("$folder")
  done
}

# Folders that the image configures are searched anyway, in its own order: only the others go
# first. Sets searched (all folders), first and added.
search_order() {
  local folder if_it_is_there=yes
  local -A known=()
  configured=()
  resolve /etc/ld.so.conf
  if [[ -n $kind ]]; then read_conf /etc/ld.so.conf 0; else include '/etc/ld.so.conf.d/*.conf' 0; fi
  system_folders
  for folder in "${configured[@]}" "${system[@]}"; do known[$folder]=yes; done
  added=()
  for folder in "${folders[@]}"; do
    [[ -z ${known[$folder]-} ]] || continue
    known[$folder]=yes
    added+=("$folder")
  done
  first=("${compat[@]}" "${added[@]}")
  searched=("${first[@]}" "${configured[@]}" "${system[@]}")
}

# configured: folders named by the image's ld.so.conf and what it includes (ldconfig(8)). The limits
# only stop what an image could do to us.
read_conf() { # PATH DEPTH
  local line pattern lines=() patterns=()
  resolve "$1"
  [[ -n $real && -z ${conf_read[$real]-} && ${#conf_read[@]} -lt 1000 && $2 -lt 100 ]] || return 0
  conf_read[$real]=yes
  read_text "$1" 1048576
  mapfile -t lines <<<"$text"
  for line in "${lines[@]}"; do
    line=${line%%#*}
    line=${line#"${line%%[![:space:]]*}"}
    case $line in
      include[$' \t']*)
        IFS=$' \t' read -r -a patterns <<<"${line#include}"
        for pattern in "${patterns[@]}"; do
          [[ $pattern == /* ]] || pattern=${1%/*}/$pattern
          include "$pattern" $(($2 + 1))
        done
        ;;
      /*)
        line=${line%"${line##*[![:space:]]}"}
        line=${line%"${line##*[!/]}"}
        [[ -z $line ]] || configured+=("$line")
        ;;
    esac
  done
}

include() { # PATTERN DEPTH
  local path matches=()
  find_matches "$1"
  for path in "${matches[@]}"; do read_conf "$path" "$2"; done
}

# matches: what a pattern finds inside the container (glob(7)), in the order of the C locale.
find_matches() { # PATTERN
  local left=$1 component above name found=('') names=()
  while [[ -n $left ]]; do
    component=${left%%/*}
    if [[ $component == "$left" ]]; then left=''; else left=${left#*/}; fi
    [[ -n $component ]] || continue
    matches=()
    for above in "${found[@]}"; do
      resolve "${above:-/}"
      [[ $kind == d ]] || continue
      find_names "$component"
      for name in "${names[@]}"; do matches+=("$above/$name"); done
    done
    found=("${matches[@]}")
    if [[ ${#found[@]} -gt 10000 ]]; then found=(); fi
  done
  matches=("${found[@]}")
}

# names: those in the directory $real that a component of a pattern matches.
find_names() { # COMPONENT
  local path name IFS='' below=()
  local -A matched=()
  names=()
  if [[ $1 != *[*?[\\]* ]]; then
    names=("$1")
    return
  fi
  # shellcheck disable=SC2206 # the pattern is the point; IFS is empty
  below=("${here%/}"/$1)
  for path in "${!seen[@]}"; do
    [[ ${path%/*} != "$real" || -z ${seen[$path]} ]] || below+=("$path")
  done
  for path in "${below[@]}"; do
    name=${path##*/}
    # shellcheck disable=SC2053
    [[ $name != $1 || ($name == .* && $1 != .*) ]] || matched[$name]=yes
  done
  [[ ${#matched[@]} -eq 0 ]] || mapfile -t names < <(printf '%s\n' "${!matched[@]}" | sort)
}

# system: where the loader looks by itself. Debian's ldconfig and everybody else's differ, and the
# host's runs for any image: so the image's are listed.
system_folders() {
  local machine multiarch
  machine=${BASH_VERSINFO[5]%%-*}
  case $machine in
    x86_64 | aarch64) multiarch=$machine-linux-gnu ;;
    powerpc64le | ppc64le) multiarch=powerpc64le-linux-gnu ;;
    *) multiarch='' ;;
  esac
  resolve /etc/debian_version
  if [[ $kind == f ]]; then
    system=(${multiarch:+"/lib/$multiarch" "/usr/lib/$multiarch"} /lib /usr/lib)
  else
    system=(/lib /lib64 /usr/lib /usr/lib64)
    [[ $machine != x86_64 ]] || system=(/lib /lib64 /libx32 /usr/lib /usr/lib64 /usr/libx32)
  fi
}

# ldconfig would make the link of a library's SONAME, but not in a read-only root: it makes them
# aside, from binds of the mounted libraries, and the stage gets those that are missing.
soname_links() {
  local i folder aside count=0
  local -A is_searched=() asides=()
  if_it_is_there=yes
  for folder in "${searched[@]}"; do
    resolve "$folder"
    [[ $kind != d ]] || is_searched[$real/]=yes
  done
  if_it_is_there=''
  for i in "${!mount_at[@]}"; do
    folder=${mount_at[i]%/*}
    [[ ${mount_kind[i]} == file && -n $folder && -n ${is_searched[$folder/]-} ]] || continue
    # A later mount may have covered it.
    [[ ${seen[${mount_at[i]}]} == f && ${seen_here[${mount_at[i]}]} == "${mount_source[i]}" ]] || continue
    case ${mount_at[i]##*/} in lib*.so* | ld-*.so*) ;; *) continue ;; esac
    aside=${asides[$folder]-}
    if [[ -z $aside ]]; then
      aside=$work/sonames/$((++count))
      asides[$folder]=$aside
      mkdir -p -- "$aside" || die 'can not make %q' "$aside"
    fi
    [[ ! -e $aside/${mount_at[i]##*/} ]] || continue
    : >"$aside/${mount_at[i]##*/}" || die 'can not make %q' "$aside/${mount_at[i]##*/}"
    queue "${mount_source[i]}" "$aside/${mount_at[i]##*/}" bind
  done
  [[ $count -gt 0 ]] || return 0
  make_queued
  ldconfig -n "${asides[@]}" >/dev/null 2>&1
  for folder in "${!asides[@]}"; do stage_sonames "$folder" "${asides[$folder]}"; done
}

stage_sonames() { # FOLDER ASIDE
  local entry name newest
  for entry in "$2"/*; do
    [[ -L $entry ]] || continue
    name=${entry##*/}
    resolve "$1/$name" keep
    # What is there stays, but a link of the image's own gets the newer library, as with ldconfig.
    [[ -z $kind || ($kind == l && ${seen_here[$real]} != "$work"/*) ]] || continue
    IFS= read -r -d '' newest < <(readlink -z -- "$entry")
    if [[ $kind == l ]]; then
      read_link "$real"
      newer "$newest" "${text##*/}" || continue
    fi
    link "$1/$name" "$newest"
  done
}

newer() { # NAME OTHER
  local sorted=()
  [[ $1 != "$2" ]] || return 1
  mapfile -t sorted < <(printf '%s\n' "$1" "$2" | sort -V)
  [[ ${sorted[1]} == "$1" ]]
}

# What has to be in the stage before anything is mounted.
prepare_loader() {
  [[ -n $ldcache_wanted ]] || return 0
  search_order
  musl_path
  if ! hash ldconfig 2>/dev/null; then
    local IFS=:
    say 'this machine has no ldconfig: LD_LIBRARY_PATH is set instead of ld.so.cache'
    library_path="${searched[*]}"
    return 0
  fi
  soname_links
  mount_point /etc/ld.so.cache f cover
  cache_at=$real
}

# The image's cache can't be extended by a script, so the host's ldconfig makes a new one. It is
# chrooted in the finished root, reads a configuration and writes its cache through a descriptor of
# a directory outside (the root is read-only), and the result is bound in place. The image's own
# configuration has been read: it could be one that ldconfig does not come to the end of.
make_ldcache() {
  local directory
  [[ -n $cache_at ]] || return 0
  mkdir -p -- "$work/loader" || die 'can not make %q' "$work/loader"
  printf '%s\n' "${searched[@]}" >"$work/loader/conf" || die 'can not write %q' "$work/loader/conf"
  hide_auxiliary_cache
  exec {directory}<"$work/loader" || die 'can not open %q' "$work/loader"
  ldconfig -X -r "$root" -f "/proc/self/fd/$directory/conf" -C "/proc/self/fd/$directory/cache" \
    >/dev/null 2>"$work/refusal"
  exec {directory}<&-
  if [[ ! -s $work/loader/cache ]]; then
    IFS= read -r reason <"$work/refusal"
    die 'ldconfig made no cache (%s): is /proc mounted in the container?' "$reason"
  fi
  queue "$work/loader/cache" "$root$cache_at" bind,ro,nosuid,nodev
  make_queued
}

# ldconfig also keeps notes in /var/cache; with the host as the image they would be the host's.
hide_auxiliary_cache() {
  local if_it_is_there=yes
  resolve /var/cache/ldconfig
  [[ $kind == d && -w $root$real ]] || return 0
  mkdir -p -- "$work/empty" || die 'can not make %q' "$work/empty"
  queue "$work/empty" "$root$real" bind,ro
  make_queued
}

# musl has no cache; its loader reads a list of folders. Without the file it has a list of its own,
# which has to be in the file then.
musl_path() {
  local arch='' path present folder wanted=("${added[@]}")
  musl_arch
  [[ -n $arch ]] || return 0
  path=/etc/ld-musl-$arch.path
  read_text "$path" 1048576
  [[ $kind == f ]] || wanted+=(/lib /usr/local/lib /usr/lib)
  [[ -z $text || $text == *$'\n' ]] || text+=$'\n'
  present=:${text//$'\n'/:}
  for folder in "${wanted[@]}" "${system[@]}"; do
    [[ $present != *:"$folder":* ]] || continue
    present+=$folder: text+=$folder$'\n'
  done
  printf %s "$text" >"$work/files/musl" || die 'can not write %q' "$work/files/musl"
  mount_point "$path" f cover
  add_mount "$real" "$work/files/musl" file bind,ro,nosuid,nodev ''
}

# arch: of the image's musl, '' without one.
musl_arch() {
  local loader machine=${BASH_VERSINFO[5]%%-*} if_it_is_there=yes
  resolve /lib
  for loader in "${here:-/nowhere}"/ld-musl-*.so.1; do
    loader=${loader##*/ld-musl-} loader=${loader%.so.1}
    [[ -n $arch && $loader != "$machine" ]] || arch=$loader
  done
  [[ -z $arch ]] || return 0
  resolve /etc/alpine-release
  [[ $kind != f ]] || arch=$machine
}

# --- CUDA forward compatibility ----------------------------------------------------------------

# The image's newer libcuda comes first if it says that it can work with this driver: the rule of
# the vendor's enable-cuda-compat hook.
cuda_compat() { # DIRECTORY DRIVER-VERSION CUDA-VERSION
  local candidate library='' count=0 directory if_it_is_there=yes
  [[ -n $2$3 ]] || return 0
  resolve "$1"
  [[ $kind == d ]] || return 0
  directory=$real
  for candidate in "$here"/libcuda.so.*.*; do
    [[ -f $candidate && ! -L $candidate ]] || continue
    library=$candidate count=$((count + 1))
  done
  [[ $count -eq 1 ]] || return 0
  if compat_wanted "$library" "${library##*/libcuda.so.}" "$2" "$3"; then compat+=("$directory"); fi
}

compat_wanted() { # LIBRARY ITS-DRIVER-VERSION DRIVER-VERSION CUDA-VERSION
  local branches cuda
  if compat_note "$1"; then
    branches='' cuda=''
    [[ ! $note =~ \"Driver\"[[:space:]]*:[[:space:]]*\[([0-9,[:space:]]*)\] ]] || branches=,${BASH_REMATCH[1]//[[:space:]]/},
    [[ ! $note =~ \"CUDA\ Version\"[[:space:]]*:[[:space:]]*\"([^\"]*)\" ]] || cuda=${BASH_REMATCH[1]}
    if ! is_version "$2" || ! is_version "$3"; then
      is_version "$4" && is_version "$cuda" && version_greater "$cuda" "$4"
      return
    fi
    [[ $branches == *",$((10#${3%%.*})),"* ]] && version_greater "$2" "$3"
    return
  fi
  # Without the note only the driver's major version tells, and a CUDA version tells nothing.
  [[ -z $4 ]] && is_version "$2" && is_version "$3" && ((10#${2%%.*} > 10#${3%%.*}))
}

is_version() { [[ $1 =~ ^[0-9]{1,9}(\.[0-9]{1,9}){0,2}$ ]]; }

version_greater() { # VERSION OTHER
  local i mine=() other=()
  IFS=. read -r -a mine <<<"$1"
  IFS=. read -r -a other <<<"$2"
  for i in 0 1 2; do
    ((10#${mine[i]-0} == 10#${other[i]-0})) || return $((10#${mine[i]-0} < 10#${other[i]-0}))
  done
  return 1
}

# note: the JSON of the ELF section .note.cuda.fwd_compatibility (elf(5), 64-bit little-endian).
compat_note() { # LIBRARY
  local library=$1 table=() row i strings
  numbers "$library" 1 0 6
  [[ "${row[*]-}" == '127 69 76 70 2 1' ]] || return 1
  numbers "$library" 8 40 8
  table=("${row[0]}")
  numbers "$library" 2 58 6
  [[ ${#row[@]} -eq 3 && ${row[0]} -eq 64 && ${row[2]} -lt ${row[1]} ]] || return 1
  table+=("${row[1]}" "${row[2]}")
  numbers "$library" 8 "${table[0]}" $((64 * table[1]))
  # Of a header's eight 64-bit words: 0 name and type, 3 offset, 4 size, 6 alignment.
  [[ ${#row[@]} -eq $((8 * table[1])) ]] || return 1
  table=("${row[@]}" "${table[2]}")
  strings=${table[8 * ${table[@]: -1} + 3]}
  for ((i = 0; i + 1 < ${#table[@]}; i += 8)); do
    (((table[i] >> 32) == 7)) || continue
    section_is "$library" $((strings + (table[i] & 0xffffffff))) .note.cuda.fwd_compatibility || continue
    read_note "$library" "${table[i + 3]}" "${table[i + 4]}" "${table[i + 6]}"
    return
  done
  return 1
}

numbers() { # FILE WIDTH OFFSET SIZE: row
  row=()
  IFS=$' \t\n' read -r -d '' -a row < <(od -An -v -w$(($2 * 8)) "-tu$2" -j "$3" -N "$4" -- "$1" 2>/dev/null)
  return 0
}

section_is() { # FILE OFFSET NAME
  local bytes
  IFS= read -r -d '' bytes < <(tail -c "+$(($2 + 1))" -- "$1" | head -c $((${#3} + 1)))
  [[ $bytes == "$3" ]]
}

read_note() { # FILE OFFSET SIZE ALIGNMENT
  local row name align=$4
  numbers "$1" 4 "$2" 12
  [[ ${#row[@]} -eq 3 && ${row[0]} -gt 0 && ${row[1]} -gt 0 ]] || return 1
  [[ $align -gt 0 ]] || align=1
  section_is "$1" $(($2 + 12)) 'NVIDIA Corporation' || return 1
  name=$(((row[0] + align - 1) / align * align))
  ((12 + name + row[1] <= $3 && row[1] < 65536)) || return 1
  note=$(tail -c "+$(($2 + 12 + name + 1))" -- "$1" | head -c "${row[1]}" | tr -d '\0')
  [[ $note == '{'*'}' ]]
}

# --- The container -----------------------------------------------------------------------------

# A place for our own files that nobody will miss in this mount namespace, and nothing is left
# behind. It can't be bound, so that no recursive bind of the host shows it or loops; what is in it
# can.
make_work() {
  local place
  for place in /proc/fs /sys/kernel /sys/firmware; do
    [[ -d $place ]] || continue
    work=$place/work root=$place/work/root
    mount -n -t tmpfs -o mode=700,unbindable cdi-hpc "$place" || die 'a tmpfs can not be mounted at %q' "$place"
    mkdir -- "$work" || die 'can not make %q' "$work"
    mount -n -t tmpfs -o mode=755,private cdi-hpc "$work" || die 'a tmpfs can not be mounted at %q' "$work"
    mkdir -p -- "$root" "$work/host" "$work/files" "$work/additions/0" || die 'can not make %q' "$root"
    return 0
  done
  die '/proc is not mounted on this machine'
}

# image: the directory without links on the way.
find_image() { # IMAGE
  [[ -e $1 ]] || die 'the image %q does not exist' "$1"
  [[ -d $1 ]] || die 'the image %q is not a directory: unpack it first (unsquashfs for a SquashFS file)' "$1"
  image=$(cd -P -- "$1" 2>/dev/null && printf '%s.' "$PWD") || die 'the image %q can not be entered' "$1"
  image=${image%.}
  [[ $image != // ]] || image=/
}

# Folders that the loader has to search come before those of the plan, or else of the caller.
add_library_path() {
  local item value=${LD_LIBRARY_PATH-}
  [[ -n $library_path ]] || return 0
  for item in "${environment[@]}"; do
    [[ $item != LD_LIBRARY_PATH=* ]] || value=${item#*=}
  done
  environment+=("LD_LIBRARY_PATH=$library_path${value:+:$value}")
}

# The image's passwd and group, with the caller and his groups added where they are missing. Read
# before anything is mounted: an image's link must not lead into the host's /proc.
accounts() { # UID GID...
  local uid=$1 gid=$2 account name="user$1" gecos='' home=/
  shift
  read_text /etc/passwd
  if ! has_id "$uid"; then
    account=$(getent passwd "$uid" 2>/dev/null) && IFS=: read -r name _ _ _ gecos home _ <<<"$account"
    add_lines /etc/passwd "$name:x:$uid:$gid:$gecos:$home:/bin/sh"
  fi
  read_text /etc/group
  add_groups "$@"
}

add_groups() { # GID...
  local id name lines=()
  local -A missing=()
  for id; do has_id "$id" || missing[$id]=group$id; done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  while IFS=: read -r name _ id _; do missing[$id]=$name; done < <(getent group "${!missing[@]}" 2>/dev/null)
  for id; do
    [[ -z ${missing[$id]-} ]] || lines+=("${missing[$id]}:x:$id:")
  done
  add_lines /etc/group "${lines[@]}"
}

# Whether the table in text, of passwd(5) or group(5), has this number in its third field.
has_id() { # ID
  local pattern=$'\n[^:\n]*:[^:\n]*:0*'$1$'(:|\n|$)'
  [[ $'\n'$text =~ $pattern ]]
}

# FILE is what is in text, and LINES.
add_lines() { # FILE LINE...
  local aside=$work/files/${1##*/}
  {
    printf %s "$text"
    [[ -z $text || $text == *$'\n' ]] || echo
    printf '%s\n' "${@:2}"
  } >"$aside" || die 'can not write %q' "$aside"
  bind file "$aside" "$1" bind,ro,nosuid,nodev
}

# What every container has, whatever the devices.
host_directories() {
  local file
  bind_as_is /proc /proc
  bind_as_is /sys /sys
  sys_at=$real
  if wants_private_dev; then make_dev; else bind_as_is /dev /dev; fi
  resolve /tmp
  if [[ $real == /tmp ]]; then bind directory /tmp /tmp rbind; fi
  [[ $image != / ]] || return 0
  for file in /etc/resolv.conf /etc/hosts; do
    [[ ! -e $file ]] || bind file "$file" "$file" bind
  done
}

# An image whose /tmp is a link gets the host's /tmp where the link leads, if that is in nobody's way.
late_tmp() {
  local path
  resolve /tmp
  refuse_root /tmp
  [[ $real != /tmp && $kind != f && -z ${leads_to_mount[$real]-} ]] || return 0
  for path in "${!seen_here[@]}"; do
    [[ $path/ != "$real"/* || ${seen_here[$path]} != "$work"/* ]] || return 0
  done
  bind_as_is /tmp /tmp
}

# A /dev of the container's own. Nodes can only be bound, not made. mode=755: in a sticky directory
# that all may write to, the kernel refuses "> /dev/null" (O_CREAT of another's file, EACCES). A new
# instance of devpts: the host's ptmx is often closed.
make_dev() {
  local name
  filesystem tmpfs cdi-hpc /dev noexec,nosuid,mode=755
  for name in null zero full random urandom tty fuse; do
    [[ ! -e /dev/$name ]] || bind device "/dev/$name" "/dev/$name" bind
  done
  link /dev/fd /proc/self/fd
  link /dev/stdin /proc/self/fd/0
  link /dev/stdout /proc/self/fd/1
  link /dev/stderr /proc/self/fd/2
  link /dev/ptmx pts/ptmx
  filesystem devpts devpts /dev/pts noexec,nosuid,newinstance,ptmxmode=0666,mode=0620
  for name in shm mqueue; do
    [[ ! -d /dev/$name ]] || bind_as_is "/dev/$name" "/dev/$name"
  done
}

build_container() { # IMAGE UID GID...
  local directory_wanted
  directory_wanted=$(pwd -P && printf .)
  directory_wanted=${directory_wanted%$'\n.'}
  find_image "$1"
  read_host_mounts
  make_work
  add_mount '' "$image" directory '' "$work/additions/0"
  [[ $image == / ]] || accounts "${@:2}"
  host_directories
  plan
  prepare_loader
  add_library_path
  late_tmp
  if_it_is_there=yes
  resolve "$directory_wanted"
  if_it_is_there=''
  [[ $kind != d ]] || working_directory=${real:-/}
  make_stage
  flags=''
  if [[ $image != / ]]; then
    flags_of_mount "$image"
    add_flags "$flags" ro nosuid nodev
  fi
  merge "$work/additions/0" "$image" "$root" "$flags"
  queue / "$work/host" rbind
  make_mounts
  make_ldcache
  if [[ -n $root_is_underlay ]]; then
    mount -n -c -o remount,bind,ro,nosuid,nodev "$root" || die 'the root can not be made read-only'
  fi
}

# Steps 1: become root of a user namespace with a mount namespace, in which mount(8) works.
# Mounts of the host still arrive (slave): automounted home directories need it.
enter() { # ARGUMENT...
  local self=$0 uid gids
  [[ -f $self ]] || die 'this script has to be a file, not a pipe: it runs twice'
  [[ $(unshare --help 2>&1) == *--map-user* ]] ||
    die 'the unshare of this machine is too old for --map-user: install util-linux 2.36 or newer'
  unshare --user --map-root-user --mount true 2>/dev/null || explain_no_namespaces
  # Not UID and GROUPS: variables of the caller with these names would be taken for them.
  { uid=$(id -u) && gids=$(id -G); } || die 'id can not say who you are'
  cdi_hpc_next=(
    unshare --user --map-root-user --mount --propagation slave
    "$BASH" -p -- "$self" "--inside=$uid $gids" "--stage=$stage" -- "$@"
  )
}

explain_no_namespaces() {
  local knob value
  for knob in user/max_user_namespaces=0 kernel/unprivileged_userns_clone=0 kernel/apparmor_restrict_unprivileged_userns=1; do
    value=''
    [[ ! -r /proc/sys/${knob%=*} ]] || read -r value <"/proc/sys/${knob%=*}"
    [[ $value != "${knob#*=}" ]] ||
      die 'user namespaces are switched off (/proc/sys/%s is %s): ask the administrator to allow them' "${knob%=*}" "$value"
  done
  die 'the kernel refuses a user namespace: a chroot, a container or a security policy forbids it'
}

# A file of ours must not become somebody's standard stream.
open_closed_streams() {
  { : <&0; } 2>/dev/null || exec </dev/null
  { : >&1; } 2>/dev/null || exec >/dev/null
  { : >&2; } || exec 2>/dev/null
}

# Step 2, the last: this process becomes the command, as the caller's uid and without capabilities.
# It has to have the new root as its root, without chroot(2), because the kernel refuses user
# namespaces to chrooted processes and a container in the container would not work. So it waits, in
# a bash that is loaded and needs nothing of the host any more, and a helper with the namespace's
# rights calls pivot_root(8), which moves it along.
become_command() { # UID GID COMMAND...
  local uid=$1 gid=$2 pipe ready_read ready_write go_read go_write
  shift 2
  mkfifo -- "$work/ready" "$work/go" || die 'can not make a FIFO'
  # Opened for both first, so that neither of the other two waits for somebody at the far end.
  # shellcheck disable=SC2094
  exec {pipe}<>"$work/ready" {ready_read}<"$work/ready" {ready_write}>"$work/ready" {pipe}>&- ||
    die 'can not open a FIFO'
  # shellcheck disable=SC2094
  exec {pipe}<>"$work/go" {go_read}<"$work/go" {go_write}>"$work/go" {pipe}>&- || die 'can not open a FIFO'
  # Twice in the background: the command must not find a child that it never had.
  (
    exec {ready_write}>&- {go_read}<&- </dev/null >&2
    switch_root &
  )
  exec {ready_read}<&- {go_write}>&-
  cdi_hpc_next=()
  if [[ $uid -ne 0 ]]; then
    cdi_hpc_next+=(unshare --user "--map-user=$uid" "--map-group=$gid" --keep-caps)
  fi
  cdi_hpc_next+=(setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --ambient-caps=-all)
  # bash has a PATH for itself where the caller has none.
  [[ $path_was == 'declare -x'* ]] ||
    environment=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${environment[@]}")
  cdi_hpc_next+=(
    "$BASH" -p -c "$cdi_hpc_last_words" cdi-hpc "$ready_write" "$go_read" "$working_directory"
    ${OLDPWD+"OLDPWD=$OLDPWD"} "${environment[@]}" -- "$@"
  )
}

switch_root() {
  read -r _ <&"$ready_read" || exit
  # After pivot_root this shell finds no program of the host. The one that takes the old root away
  # is started before, chrooted in a bind of the host, and goes to the new root by setns(2) (-N).
  coproc detacher {
    exec chroot "$work/host" "$BASH" -p -c 'echo; read -r _ && exec umount -n -l -N /proc/self/ns/mnt "$1"' bash "$sys_at"
  }
  # shellcheck disable=SC2154 # coproc sets them
  {
    read -r _ <&"${detacher[0]}" && cd -P -- "$root" && pivot_root . ".$sys_at" && echo >&"${detacher[1]}" &&
      wait "$detacher_PID" && echo >&"$go_write"
  } || die 'the root could not be changed: util-linux 2.36 or newer is needed, and a root that is not the initramfs'
}

main() { # ARGUMENT OF THE SCRIPT...
  local path_was
  path_was=$(declare -p PATH)
  local LC_ALL=C PATH=${PATH-}:/usr/sbin:/sbin inside='' image='' mask
  local usage='usage: bash SCRIPT [--stage=auto|overlay|underlay] IMAGE COMMAND [ARGUMENT...]'
  set +eu
  open_closed_streams
  mask=$(umask)
  umask 022
  shopt -s nullglob dotglob
  local stage=auto
  while [[ $# -gt 0 ]]; do
    case $1 in
      --stage=auto | --stage=overlay | --stage=underlay) stage=${1#*=} ;;
      --inside=*) inside=${1#*=} ;;
      --help) printf '%s\n' "$usage" && exit ;;
      --) shift && break ;;
      -*) die 'unknown option %q; %s' "$1" "$usage" ;;
      *) break ;;
    esac
    shift
  done
  [[ $# -ge 2 ]] || die '%s' "$usage"
  refuse_what_is_refused
  local tool
  for tool in unshare mount umount setpriv; do need "$tool" util-linux; done
  need pivot_root 'util-linux, or where that lacks it (Debian 14), util-linux-extra'
  for tool in mkdir mkfifo ln cp chmod stat readlink chroot id; do need "$tool" coreutils; done
  if [[ -z $inside ]]; then
    find_image "$1"
    enter "$@"
  else
    with_state build_and_become "$inside" "$@"
  fi
  umask "$mask"
}

build_and_become() { # 'UID GID...' IMAGE COMMAND...
  local ids=()
  IFS=' ' read -r -a ids <<<"$1"
  build_container "$2" "${ids[@]}"
  become_command "${ids[0]}" "${ids[1]}" "${@:3}"
}

# The function of --only mounts: the plan on a root that somebody else has made. It is written to.
main_mounts() { # ROOT
  local LC_ALL=C PATH=${PATH-}:/usr/sbin:/sbin stage=auto tool
  set +eu
  [[ $# -eq 1 ]] || die 'usage: cdi_mounts ROOT'
  refuse_what_is_refused
  umask 022
  shopt -s nullglob dotglob
  for tool in mount umount; do need "$tool" util-linux; done
  for tool in mkdir ln cp chmod stat readlink; do need "$tool" coreutils; done
  with_state mount_on "$1"
}

mount_on() { # ROOT
  find_image "$1"
  read_host_mounts
  make_work
  root=$image
  add_mount '' "$root" directory '' "$root"
  if wants_private_dev; then make_dev; fi
  plan
  prepare_loader
  [[ -z $library_path ]] || say "set LD_LIBRARY_PATH to $library_path"
  make_stage
  make_mounts
  make_ldcache
  umount -n -l "${work%/work}" || die '%q can not be unmounted' "${work%/work}"
}

# Runs a function with the variables that all of them share.
with_state() { # FUNCTION ARGUMENT...
  # Mounts, in the order they are made: where in the container (canonical), what, as what, how; and
  # for a directory where new entries go ('' if it can't have any).
  local mount_at=() mount_source=() mount_kind=() mount_options=() mount_additions=()
  # The numbers of those that are directories; paths that a mount is at or below, with its number.
  local latest_first=()
  local -A leads_to_mount=() directories_resolved=() placed_in=()
  # What is known of canonical container paths, and the texts of links.
  local -A seen=() seen_here=() link_text=()
  # What the stage gets; directories in it that take the mode of the one they stand over.
  local new_directories=() new_files=()
  local -A new_links=() copy_mode=()
  # What functions return.
  local if_it_is_there='' owner=0 kind='' here='' real='' text='' where='' field='' flags='' reason='' note='' row=()
  # The host, and our own places.
  local host_mount_at=() host_mount_options=() work='' root='' image='' layer_count=0
  # By mount point: what of its file system is there. By our mounts: what they must show of an image.
  local -A top_of_mount=() must_show=()
  local root_is_underlay='' sys_at='' working_directory=/
  # The dynamic loader.
  local library_path='' ldcache_wanted='' folders=() compat=() first=() added=() searched=() configured=() system=() cache_at=''
  local -A conf_read=()
  # NAME=value of the command's environment.
  local environment=()
  "$@"
}

# What the waiting bash does. It has no variables: they could be the command's. cd sets OLDPWD;
# unset takes the special meaning from names such as RANDOM; LC_ALL makes bash complain about
# locales that are not its business.
# Arguments: READY-FD GO-FD DIRECTORY NAME=VALUE... -- COMMAND...
readonly cdi_hpc_last_words='
echo >&"$1"
read -r -u "$2" _ || exit 125
cd -P -- "$3" 2>/dev/null || cd /
unset -v OLDPWD
eval "exec $1>&- $2<&-"
shift 3
until [[ $1 == -- ]]; do
  unset -v "${1%%=*}"
  export "$1" 2>/dev/null
  shift
done
shift
exec -- "$@"
'
