"""Scripts with which shells ask us when somebody presses the tab key: templates for click, and what goes below them."""

from __future__ import annotations

from collections.abc import Mapping

BASH = """\
_cdi_hpc_ask() { # LINE: the words up to the cursor; of our own command
    # Readline takes words apart; what it replaces is the part behind the last of its marks.
    local word behind type value
    word=${1##*[[:space:]]}
    behind=${word##*["$COMP_WORDBREAKS"]}
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"${word%%"$behind"}"}") ;;
        esac
    done < <(COMP_LINE=$1 %(complete_var)s=bash_complete %(prog_name)s 2>/dev/null)
}
%(complete_func)s() {
    _cdi_hpc_ask "${COMP_LINE:0:COMP_POINT}"
}
complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null || complete -F %(complete_func)s %(prog_name)s
"""

#: click's own takes values apart at commas.
FISH = """\
function %(complete_func)s
    set --local --export COMP_WORDS (commandline --current-process --cut-at-cursor)
    set --local --export COMP_CWORD (commandline --current-token --cut-at-cursor)
    _cdi_hpc_ask
end
function _cdi_hpc_ask
    set --local option (string match --regex '^--[a-z-]+=' -- $COMP_CWORD)
    for completion in (env %(complete_var)s=fish_complete %(prog_name)s 2>/dev/null)
        set --local parts (string split --max 1 , -- $completion)
        switch $parts[1]
            case dir
                string replace --regex '^' -- "$option" (__fish_complete_directories $parts[2])
            case file
                string replace --regex '^' -- "$option" (__fish_complete_path $parts[2])
            case plain
                echo $parts[2]
        end
    end
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""

#: In click's script for zsh: what a path is completed with takes an option before it for a part of it.
ZSH_PATHS = ("_path_files", "[[ $PREFIX != --*=* ]] || compset -P 1 '*='; _path_files")

# What completed the launcher before goes on to do so. bash-completion reads its file for a command when the command is
# first completed, and that file takes our place: so it is read by us, and its place is taken back.
_BASH_LAUNCHERS = """\
declare -gA _cdi_hpc_before
_cdi_hpc_adopt() {{ # COMMAND
    local before
    before=$(complete -p -- "$1" 2>/dev/null)
    if [[ $before =~ ' -F '([^ ]+)' ' && ${{BASH_REMATCH[1]}} != _cdi_hpc_launcher ]]; then
        _cdi_hpc_before[$1]=${{BASH_REMATCH[1]}}
        eval "${{before/" -F ${{BASH_REMATCH[1]}} "/ -F _cdi_hpc_launcher }}"
    elif [[ -z $before ]]; then
        complete -o bashdefault -o default -F _cdi_hpc_launcher "$1"
    fi
}}
_cdi_hpc_launcher() {{
    local line=${{COMP_LINE:0:COMP_POINT}} name=${{1##*/}} apart='device|lock|cdi-[a-z]+'
    [[ " srun sbatch salloc " != *" $name "* ]] || apart+='|cdi'
    if [[ $line =~ [[:space:]]--(device|lock|cdi|cdi-[a-z]+)=[^[:space:]]*$ ||
        $line =~ [[:space:]]--($apart)[[:space:]]+([^[:space:]-][^[:space:]]*)?$ ]]; then
        _cdi_hpc_ask "cdi-hpc exec $line"
        return
    fi
    if [[ -z ${{_cdi_hpc_before[$name]-}} ]]; then
        if declare -F _comp_load >/dev/null; then
            _comp_load "$1"
        elif declare -F _completion_loader >/dev/null; then
            _completion_loader "$1"
        fi
        _cdi_hpc_adopt "$name"
    fi
    COMPREPLY=()
    [[ -z ${{_cdi_hpc_before[$name]-}} ]] || "${{_cdi_hpc_before[$name]}}" "$@"
}}
for _cdi_hpc_name in {others} {slurm}; do _cdi_hpc_adopt "$_cdi_hpc_name"; done
unset _cdi_hpc_name
"""

_ZSH_LAUNCHERS = """\
typeset -gA _cdi_hpc_before
_cdi_hpc_launcher() {{
    local before=${{_cdi_hpc_before[$service]}}
    if [[ ${{words[CURRENT]}} == --(device|lock|cdi|cdi-*)=* || ${{words[CURRENT-1]}} == --(device|lock|cdi-*) ||
        ( $service == s(run|batch|alloc) && ${{words[CURRENT-1]}} == --cdi ) ]]; then
        words=(cdi-hpc exec "${{(@)words}}")
        (( CURRENT += 2 ))
        _cdi_hpc_completion
    elif [[ -n $before ]]; then
        eval "$before"
    else
        _default
    fi
}}
for _cdi_hpc_name in {others} {slurm}; do
    [[ ${{_comps[$_cdi_hpc_name]}} == _cdi_hpc_launcher ]] ||
        _cdi_hpc_before[$_cdi_hpc_name]=${{_comps[$_cdi_hpc_name]}}
    compdef _cdi_hpc_launcher $_cdi_hpc_name
done
unset _cdi_hpc_name
"""

# fish puts together what several scripts say of a command, and reads --option=VALUE itself.
_FISH_LAUNCHERS = """\
function _cdi_hpc_launcher
    set --local token (string replace --regex '^--[a-z-]+=' '' -- (commandline --current-token --cut-at-cursor))
    # As one word: it does not matter there whether the value may be the next one.
    set --local --export COMP_WORDS "cdi-hpc exec $argv[1] $argv[2]=$token"
    set --local --export COMP_CWORD "$argv[2]=$token"
    _cdi_hpc_ask | string replace -- "$argv[2]=" ''
end
for name in {others}
    for option in cdi cdi-dirs device lock
        complete --command $name --long-option $option --exclusive --arguments "(_cdi_hpc_launcher $name --$option)"
    end
end
for name in {slurm}
    for option in cdi cdi-image cdi-mode
        complete --command $name --long-option $option --exclusive --arguments "(_cdi_hpc_launcher $name --$option)"
    end
end
"""

#: By shell, what is added for launchers: a format with ``slurm`` (srun, sbatch, salloc) and ``others``.
LAUNCHERS: Mapping[str, str] = {"bash": _BASH_LAUNCHERS, "zsh": _ZSH_LAUNCHERS, "fish": _FISH_LAUNCHERS}
