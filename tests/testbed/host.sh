#!/bin/bash
# Process 1 of a host, in namespaces of its own:  host.sh STATE NAME [CGROUP.PROCS...]
#
# Makes the host's root, an overlay over this machine's that has its programs and nothing of its users and of
# Python, on a disk of 64 MB of memory; moves into it, starts sshd, and stays as the sleeping parent of orphans.
# Reads from STATE: hosts, ssh/id_ed25519.pub, NAME/ssh_host_*, NAME/pythons.  Writes NAME/pid, as seen outside.
set -euo pipefail
state=$1 name=$2 own=$1/$2
for procs in "${@:3}"; do echo 0 >"$procs"; done
read -r pid _ </proc/self/stat
echo "$pid" >"$own/pid.new"
mv "$own/pid.new" "$own/pid"
hostname "$name"

mount -t tmpfs -o size=64m,mode=755 disk "$own/fs"
mkdir "$own"/fs/{upper,work,root,masks}
root=$own/fs/root
mount -t overlay -o "lowerdir=/,upperdir=$own/fs/upper,workdir=$own/fs/work" root "$root"

# --- what a bare machine does not have -----------------------------------------------------------
mask() {  # an empty folder of the host's own disk; PATH is inside the host
    if [ -d "$root$1" ]; then
        mkdir -p "$own/fs/masks$1"
        mount --bind "$own/fs/masks$1" "$root$1"
    fi
}
mkdir -p "$root/opt"
for folder in /* /var/tmp /usr/local /usr/lib/python3/dist-packages /etc/ssh; do
    case $folder in
        /bin | /boot | /dev | /etc | /lib* | /proc | /sbin | /sys | /usr | /var) ;;
        *) mask "$folder" ;;
    esac
done
chmod 700 "$root/root"
chmod 1777 "$root/tmp" "$root/var/tmp"
mkdir -p "$root"/usr/local/bin "$root"/{root,home/river}/.ssh "$root/run/sshd" "$root/.old" "$root/etc/ssh/sshd_config.d"

# --- its Pythons, the first of which is python3 --------------------------------------------------
lines=$(cat "$own/pythons")
keep=$(awk '$2 == "/usr" {print "python" $1}' <<<"$lines")
find "$root/usr/bin" -name 'python*' ! -name "${keep:-none}" -delete
while read -r version prefix; do
    [ -n "$version" ] || continue
    home=/usr
    if [ "$prefix" != /usr ]; then
        home=/opt/python$version
        mkdir "$root$home"
        mount -o bind,ro "$prefix" "$root$home"
        mask "$home/lib/python$version/site-packages"
        for library in "$root$home"/lib/libpython*.so.1.0; do  # else found by a path that is not there any more
            if [ -e "$library" ]; then ln -sf "$home/lib/${library##*/}" "$root/usr/lib/$(uname -m)-linux-gnu/"; fi
        done
    fi
    ln -s "$home/bin/python$version" "$root/usr/local/bin/"
    [ -h "$root/usr/local/bin/python3" ] || ln -s "$home/bin/python$version" "$root/usr/local/bin/python3"
done <<<"$lines"

# --- its own kernel's files ----------------------------------------------------------------------
mount --rbind /dev "$root/dev"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount --bind "$root/dev/pts/ptmx" "$root/dev/ptmx"
mount -t tmpfs -o size=256m,mode=1777 shm "$root/dev/shm"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind -o ro /sys/fs/cgroup "$root/sys/fs/cgroup"

# --- names, users, sshd --------------------------------------------------------------------------
echo "$name" >"$root/etc/hostname"
cp "$state/hosts" "$root/etc/hosts"
: >"$root/etc/resolv.conf"  # no name server: an unknown name fails at once
echo 'river:x:2001:2001::/home/river:/bin/bash' >>"$root/etc/passwd"
echo 'river:x:2001:' >>"$root/etc/group"
echo 'river:*:19000:0:99999:7:::' >>"$root/etc/shadow"
for home in "$root/root" "$root/home/river"; do
    cp -r "$root"/etc/skel/.[a-z]* "$home/"
    cp "$state/ssh/id_ed25519.pub" "$home/.ssh/authorized_keys"
    chmod 700 "$home/.ssh"
done
chown -R 2001:2001 "$root/home/river"
cp "$own"/ssh_host_* "$root/etc/ssh/"
cat >"$root/etc/ssh/sshd_config" <<'EOF'
# As Debian ships it.
Include /etc/ssh/sshd_config.d/*.conf
HostKey /etc/ssh/ssh_host_ed25519_key
UsePAM yes
KbdInteractiveAuthentication no
PrintMotd no
X11Forwarding yes
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
LogLevel VERBOSE
EOF

cd "$root"
pivot_root . .old
/usr/sbin/sshd -E /var/log/sshd.log
umount -l /.old
# Who ignores the end of children has none to wait for.
exec env --ignore-signal=CHLD sleep infinity
