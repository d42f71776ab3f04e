# Stand-in for nvidia-smi on a simulated machine. What it prints follows from the device nodes that
# it finds under /dev, and from the tables above, so it answers alike on the node and in a
# container. Shell builtins only: the container's image may have nothing but a shell.

set -f
say() { printf '%s\n' "$1"; }

fail_arguments() {
    say "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help."
    exit 2
}

usage() {
    say "NVIDIA System Management Interface -- v$DRIVER (simulated)"
    say ''
    say 'nvidia-smi [OPTION1 [ARG1]] [OPTION2 [ARG2]] ...'
    say ''
    say '    -h,   --help                Print usage information and exit.'
    say '          --version             Print version information and exit.'
    say '    -L,   --list-gpus           Display a list of GPUs connected to the system.'
    say '    -i,   --id=                 Target a specific GPU: index, UUID or PCI bus id.'
    say '          --query-gpu=          Information about GPU, comma-separated:'
    say '                                index, name, uuid, pci.bus_id, memory.total, memory.used,'
    say '                                memory.free, driver_version, compute_cap, count,'
    say '                                mig.mode.current, mig.mode.pending, power.limit, pstate,'
    say '                                temperature.gpu, utilization.gpu'
    say '          --format=             csv[,noheader][,nounits]'
}

print_version() {
    say "NVIDIA-SMI version  : $DRIVER"
    say "NVML version        : ${DRIVER%.*}"
    say "DRIVER version      : $DRIVER"
    say "CUDA Version        : $CUDA"
}

# The GPUs whose device nodes are here, by minor number in PCI order; as in real containers, they
# are counted from 0 whatever their numbers on the node.
find_gpus() {
    visible=
    for minor in $ORDER; do
        if [ -e "/dev/nvidia$minor" ]; then visible="$visible $minor"; fi
    done
}

# A MIG device is here when both of its capability nodes are; leaves them in $slices.
find_migs() {
    mig_table "$1"
    slices=
    for row in $rows; do
        split_mig "$row"
        if [ -e "/dev/nvidia-caps/nvidia-cap$gi_cap" ] &&
            [ -e "/dev/nvidia-caps/nvidia-cap$ci_cap" ]; then
            slices="$slices $row"
        fi
    done
}

split_mig() {
    old_ifs=$IFS
    IFS=,
    set -- $1
    IFS=$old_ifs
    gi_cap=$1 ci_cap=$2 gi=$3 ci=$4 profile=$5 mig_uuid=$6 mig_memory=$7
    sms=$8
    shift 8
    ces=$1 encs=$2 decs=$3 ofas=$4 jpgs=$5
}

mig_mode() {
    mode='N/A'
    if [ "$MIG_CAPABLE" = 1 ]; then
        mode=Disabled
        find_migs "$1"
        if [ -n "$slices" ]; then mode=Enabled; fi
    fi
}

selected() {
    [ -z "$target" ] || [ "$target" = "$index" ] || [ "$target" = "$uuid" ] ||
        [ "$target" = "$bus" ] || [ "0000$target" = "$bus" ]
}

# Runs $1 for each chosen GPU with $minor, $index, $uuid and $bus set.
for_each_gpu() {
    index=0 chosen=0
    for minor in $visible; do
        gpu_table "$minor"
        if selected; then
            chosen=$((chosen + 1))
            "$1"
        fi
        index=$((index + 1))
    done
}

require_gpus() {
    if [ ! -e /dev/nvidiactl ]; then
        printf '%s%s\n\n' "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA " \
            'driver. Make sure that the latest NVIDIA driver is installed and running.'
        exit 9
    fi
    find_gpus
    for_each_gpu :
    if [ "$chosen" = 0 ]; then
        say 'No devices were found'
        exit 6
    fi
}

list_gpu() {
    say "GPU $index: $NAME (UUID: $uuid)"
    find_migs "$minor"
    device=0
    for row in $slices; do
        split_mig "$row"
        printf '  MIG %-11s Device %2d: (UUID: %s)\n' "$profile" "$device" "$mig_uuid"
        device=$((device + 1))
    done
}

RULE3='+-----------------------------------------+------------------------+----------------------+'
RULE='+-----------------------------------------------------------------------------------------+'

print_summary() {
    say "$RULE"
    printf '| NVIDIA-SMI %-22s Driver Version: %-14s CUDA Version: %-8s |\n' \
        "$DRIVER" "$DRIVER" "$CUDA"
    say "$RULE3"
    say '| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |'
    say '| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |'
    say '|                                         |                        |               MIG M. |'
    say '|=========================================+========================+======================|'
    for_each_gpu summarise_gpu
    say ''
    mig_header=0
    for_each_gpu summarise_migs
    if [ "$mig_header" = 1 ]; then say ''; fi
    say "$RULE"
    say '| Processes:                                                                              |'
    say '|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |'
    say '|        ID   ID                                                               Usage      |'
    say '|=========================================================================================|'
    say '|  No running processes found                                                             |'
    say "$RULE"
}

summarise_gpu() {
    mig_mode "$minor"
    ecc=0 use='0%'
    if [ "$mode" = Enabled ]; then ecc=On use='N/A'; fi
    printf '| %3d  %-29.29s %3s  |   %-16s Off | %20s |\n' "$index" "$NAME" On "$bus" "$ecc"
    printf '| N/A   30C    P0         %7s / %5s |    %4dMiB / %6dMiB | %7s      Default |\n' \
        "$((POWER / 10))W" "${POWER}W" 0 "$MEMORY" "$use"
    printf '|                                         |                        | %20s |\n' "$mode"
    say "$RULE3"
}

MIG_RULE='+------------------+----------------------------------+-----------+-----------------------+'

summarise_migs() {
    find_migs "$minor"
    device=0
    for row in $slices; do
        if [ "$mig_header" = 0 ]; then print_mig_header; fi
        split_mig "$row"
        printf '| %2d  %3d  %2d  %2d  |         %6dMiB / %6dMiB    |%3d      0 |%3d  %2d   %2d   %2d   %2d |\n' \
            "$index" "$gi" "$ci" "$device" 0 "$mig_memory" "$sms" "$ces" "$encs" "$decs" "$ofas" "$jpgs"
        say '|                  |                                  |           |                       |'
        say "$MIG_RULE"
        device=$((device + 1))
    done
}

print_mig_header() {
    mig_header=1
    say "$RULE"
    say '| MIG devices:                                                                            |'
    say "$MIG_RULE"
    say '| GPU  GI  CI  MIG |                     Memory-Usage |        Vol|         Shared        |'
    say '|      ID  ID  Dev |                                  | SM     Unc| CE  ENC  DEC  OFA  JPG|'
    say '|                  |                                  |        ECC|                       |'
    say '|==================+==================================+===========+=======================|'
}

# Sets $title, $value and $unit for one field of --query-gpu.
field() {
    title=$1 unit=
    case $1 in
    index) value=$index ;;
    name | gpu_name) value=$NAME ;;
    uuid | gpu_uuid) value=$uuid ;;
    pci.bus_id | gpu_bus_id) value=$bus ;;
    count) value=$count ;;
    driver_version) value=$DRIVER ;;
    compute_cap) value=$COMPUTE_CAP ;;
    memory.total) value=$MEMORY unit=MiB ;;
    memory.used) value=0 unit=MiB ;;
    memory.free) value=$MEMORY unit=MiB ;;
    mig.mode.current | mig.mode.pending)
        mig_mode "$minor"
        value=$mode
        if [ "$mode" = N/A ]; then value='[N/A]'; fi
        ;;
    power.limit) value=$POWER.00 unit=W ;;
    pstate) value=P0 ;;
    temperature.gpu) value=30 ;;
    utilization.gpu) value=0 unit=% ;;
    *)
        printf 'Field "%s" is not a valid field to query.\n\n' "$1"
        exit 2
        ;;
    esac
}

split_fields() {
    old_ifs=$IFS
    IFS=,
    set -- $query
    IFS=$old_ifs
    fields=$*
}

query_header() {
    line=
    for name in $fields; do
        field "$name"
        if [ -n "$unit" ] && [ "$units" = 1 ]; then title="$title [$unit]"; fi
        line="$line${line:+, }$title"
    done
    say "$line"
}

query_gpu() {
    line=
    for name in $fields; do
        field "$name"
        if [ -n "$unit" ] && [ "$units" = 1 ]; then value="$value $unit"; fi
        line="$line${line:+, }$value"
    done
    say "$line"
}

run_query() {
    csv=0 header=1 units=1
    old_ifs=$IFS
    IFS=,
    set -- $format
    IFS=$old_ifs
    for word; do
        case $word in
        csv) csv=1 ;;
        noheader) header=0 ;;
        nounits) units=0 ;;
        *) fail_arguments ;;
        esac
    done
    if [ "$csv" = 0 ]; then
        say "\"--format=\" switch is missing. Please run 'nvidia-smi -h' for help."
        exit 2
    fi
    split_fields
    minor=0 index=0 uuid= bus= count=0
    set -- $visible
    count=$#
    for name in $fields; do field "$name"; done
    if [ "$header" = 1 ]; then query_header; fi
    for_each_gpu query_gpu
}

action=summary target= query= format=
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --version)
        print_version
        exit 0
        ;;
    -L | --list-gpus) action=list ;;
    -i)
        if [ $# -lt 2 ]; then fail_arguments; fi
        shift
        target=$1
        ;;
    -i=* | --id=*) target=${1#*=} ;;
    --query-gpu=?*) action=query query=${1#*=} ;;
    --format=?*) format=${1#*=} ;;
    *) fail_arguments ;;
    esac
    shift
done
if [ -n "$format" ] && [ "$action" != query ]; then fail_arguments; fi

require_gpus
# All at once, as the real one writes: who reads a container's log sees nothing or everything.
case $action in
list) answer=$(for_each_gpu list_gpu) ;;
query) answer=$(run_query) ;;
*) answer=$(print_summary) ;;
esac
status=$?
if [ -n "$answer" ]; then say "$answer"; fi
exit "$status"
