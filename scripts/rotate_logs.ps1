#Requires -Version 5.1
<#
.SYNOPSIS
    Rotates cloudflared.log: at 100 MB, or 7 days after its last rotation, into
    cloudflared.log.<YYYYMMDD>.gz; the newest 10 archives are kept.

.DESCRIPTION
    For the Windows Task Scheduler, daily; scripts/Register-Tasks.ps1 installs it. Where nobody has
    the log open it is renamed and compressed. Where cloudflared has it open, it is copied to a
    temporary file, the copy catches up, and the log is truncated; for the last look and the
    truncation the service's process is paused for some milliseconds, so that no line falls between
    them. A run that is killed at any moment is finished by the next one.

    Exit codes: 0 done, or not due; 2 the log's folder is not there; 6 another run is under way; 9
    done, but something was skipped; 1 the log could not be rotated (it is whole then), or PowerShell
    refused a parameter. See docs/WINDOWS.md.

.EXAMPLE
    powershell.exe -NoProfile -File rotate_logs.ps1 -WhatIf
#>
[CmdletBinding(SupportsShouldProcess = $true)]
param(
    # Never pause the writer: a line written in the last moment may then be lost.
    [switch]$NoPause,
    # The log that is rotated.
    [string]$LogPath = 'C:\ProgramData\Cloudflare\cloudflared\cloudflared.log',
    # Rotated at this size, in MiB.
    [ValidateRange(1, 1048576)][int]$MaxMB = 100,
    # Or this long after its last rotation.
    [ValidateRange(1, 3650)][int]$MaxDays = 7,
    # Archives kept, the newest.
    [ValidateRange(1, 10000)][int]$Keep = 10,
    # The service that writes the log.
    [string]$ServiceName = 'Cloudflared'
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

# --- decisions: no clock, no disk; the same as opslib/upkeep/rotation_rules.py -------------------

function Get-DueReason {
    # 'size', 'age' or '' where the log need not be rotated.
    param([long]$SizeBytes, [double]$AgeDays, [hashtable]$Policy)
    if ($SizeBytes -eq 0) { return '' }
    if ($SizeBytes -ge $Policy.max_bytes) { return 'size' }
    if ($AgeDays -ge $Policy.max_days) { return 'age' }
    return ''
}

function Get-ArchiveOrder {
    # Sorts as the archives were made: the day, then the number within the day; '' for other files.
    param([string]$Name, [string]$LogName)
    $pattern = '^' + [regex]::Escape($LogName) + '\.([0-9]{8})(-([0-9]{1,6}))?\.gz$'
    $found = [regex]::Match($Name, $pattern)
    if (-not $found.Success) { return '' }
    $number = '1'
    if ($found.Groups[3].Success) { $number = $found.Groups[3].Value }
    return $found.Groups[1].Value + '-' + $number.PadLeft(6, '0')
}

function Get-ArchiveName {
    # The first of a day has no number, the next is -2; a number is never used again.
    param([string]$LogName, [string]$Day, [string[]]$Taken)
    $last = 0
    foreach ($name in $Taken) {
        $order = Get-ArchiveOrder -Name $name -LogName $LogName
        if (($order -ne '') -and ($order.Substring(0, 8) -eq $Day)) {
            $number = [int]$order.Substring(9)
            if ($number -gt $last) { $last = $number }
        }
    }
    if ($last -eq 0) { return "$LogName.$Day.gz" }
    $next = $last + 1
    return "$LogName.$Day-$next.gz"
}

function Get-SurplusArchive {
    # Which archives go: all but the newest; files that are no archives are never among them.
    param([string]$LogName, [string[]]$Names, [int]$Keep)
    $orders = @()
    foreach ($name in $Names) {
        $order = Get-ArchiveOrder -Name $name -LogName $LogName
        if ($order -ne '') { $orders += "$order $name" }
    }
    # By code, not by the culture: Sort-Object would ask that.
    $orders = [string[]]$orders
    [System.Array]::Sort($orders, [System.StringComparer]::Ordinal)
    $surplus = @()
    for ($index = 0; $index -lt ($orders.Count - $Keep); $index++) {
        $surplus += $orders[$index].Substring(16)
    }
    return $surplus
}

# --- words and state -----------------------------------------------------------------------------

function Get-ErrorText {
    param([System.Management.Automation.ErrorRecord]$ErrorRecord)
    $inner = $ErrorRecord.Exception
    while ($null -ne $inner.InnerException) { $inner = $inner.InnerException }
    return ($inner.Message -replace '\s+', ' ').Trim()
}

function Test-Held {
    # Whether it failed because another process has the file open: Windows' two numbers, and flock's.
    param([System.Management.Automation.ErrorRecord]$ErrorRecord)
    $inner = $ErrorRecord.Exception
    while ($null -ne $inner.InnerException) { $inner = $inner.InnerException }
    return ($inner -is [System.IO.IOException]) -and (@(11, 32, 33) -contains ($inner.HResult -band 65535))
}

function Get-FolderName {
    # The names of the files beside the log.
    param([string]$Folder)
    return @([System.IO.Directory]::GetFiles($Folder) | ForEach-Object { [System.IO.Path]::GetFileName($_) })
}

function Get-TakenName {
    # The names that a new archive may not have: a half-written one that stays takes its name too.
    param([string]$Folder)
    return @([System.IO.Directory]::GetFileSystemEntries($Folder) | ForEach-Object { [System.IO.Path]::GetFileName($_) -replace '\.partial$', '' })
}

function Get-FreePath {
    # The path itself, or with -2, -3 and so on where something lies that could not be removed.
    param([string]$Path)
    $free = $Path
    $number = 1
    while ([System.IO.File]::Exists($free) -or [System.IO.Directory]::Exists($free)) {
        $number += 1
        $free = "$Path-$number"
    }
    return $free
}

function Initialize-Writable {
    # Clears the attribute that keeps Windows from deleting or replacing a file.
    param([string]$Path)
    if (-not [System.IO.File]::Exists($Path)) { return }
    $readOnly = [System.IO.FileAttributes]::ReadOnly
    $attributes = [System.IO.File]::GetAttributes($Path)
    if ($attributes -band $readOnly) { [System.IO.File]::SetAttributes($Path, $attributes -bxor $readOnly) }
}

function Invoke-Deletion {
    param([string]$Path)
    [System.IO.File]::Delete($Path)
}

function Get-DeletionFailure {
    # Deletes a file of ours; returns '' or why it is still there.
    param([string]$Path)
    try {
        Initialize-Writable -Path $Path
        Invoke-Deletion -Path $Path
        return ''
    }
    catch {
        return (Get-ErrorText -ErrorRecord $_)
    }
}

function Write-Skipped {
    param([string]$Path, [string]$Why)
    [Console]::Error.WriteLine("skipped: ${Path}: $Why")
}

function Read-LastRotation {
    # When the age began to count, in seconds since 1970: the last rotation, else the first look.
    param([string]$Path, [long]$NowS)
    if (-not [System.IO.File]::Exists($Path)) { return $NowS }
    try {
        # ConvertFrom-Json costs an engine 10 MiB and as much time as a third of the packing.
        $since = [long][regex]::Match([System.IO.File]::ReadAllText($Path), '^\s*\{\s*"since_s":\s*([0-9]+)\s*\}\s*$').Groups[1].Value
        if ($since -eq 0) { throw 'no since_s in it' }
        if ($since -le $NowS) { return $since }
        $why = 'lies in the future'
    }
    catch {
        $why = "cannot be read ($(Get-ErrorText -ErrorRecord $_))"
    }
    [Console]::Error.WriteLine("$Path ${why}; the age counts from today")
    return $NowS
}

function Save-LastRotation {
    # Written beside itself, then renamed: a killed run leaves the old one whole.
    param([string]$Path, [long]$SinceS)
    $temporary = "$Path.tmp"
    [System.IO.File]::WriteAllText($temporary, "{""since_s"": $SinceS}")
    if ([System.IO.File]::Exists($Path)) {
        Initialize-Writable -Path $Path
        # A plain $null would arrive as an empty string.
        [System.IO.File]::Replace($temporary, $Path, [NullString]::Value)
    }
    else {
        [System.IO.File]::Move($temporary, $Path)
    }
}

function Open-RunLock {
    # A file that this process alone has open, or $null where another run has it; Windows lets go of
    # it when the process ends.
    param([string]$Path)
    try {
        Initialize-Writable -Path $Path
        return [System.IO.File]::Open($Path, [System.IO.FileMode]::OpenOrCreate, [System.IO.FileAccess]::ReadWrite, [System.IO.FileShare]::None)
    }
    catch {
        if (Test-Held -ErrorRecord $_) { return $null }
        throw "$Path cannot be opened: $(Get-ErrorText -ErrorRecord $_)"
    }
}

# --- compressing ---------------------------------------------------------------------------------

function Get-StreamHash {
    # SHA-256 of the rest of a stream, as hex digits.
    param([System.IO.Stream]$Stream)
    $sha = [System.Security.Cryptography.SHA256]::Create()
    try {
        return [BitConverter]::ToString($sha.ComputeHash($Stream)).Replace('-', '')
    }
    finally {
        $sha.Dispose()
    }
}

function Get-PackedHash {
    # SHA-256 of what a gzip file holds.
    param([string]$Path)
    $file = [System.IO.File]::Open($Path, [System.IO.FileMode]::Open, [System.IO.FileAccess]::Read, [System.IO.FileShare]::Read)
    $stream = New-Object System.IO.Compression.GZipStream($file, [System.IO.Compression.CompressionMode]::Decompress)
    try {
        # Hashing asks for 4 KiB at a time, which unpacking is slow to give.
        return (Get-StreamHash -Stream (New-Object System.IO.BufferedStream($stream, 65536)))
    }
    finally {
        $stream.Dispose()
        $file.Dispose()
    }
}

function Save-Packed {
    # Compresses Source into the new file Target, and reads it back before it takes that name; the
    # source is read once, its hash taken on the way.
    param([string]$Source, [string]$Target)
    $partial = "$Target.partial"
    # What was read and compared so far is not kept while the log goes through.
    [System.GC]::Collect()
    $sha = [System.Security.Cryptography.SHA256]::Create()
    $file = [System.IO.File]::Open($Source, [System.IO.FileMode]::Open, [System.IO.FileAccess]::Read, [System.IO.FileShare]::Read)
    $from = New-Object System.Security.Cryptography.CryptoStream($file, $sha, [System.Security.Cryptography.CryptoStreamMode]::Read)
    try {
        $to = [System.IO.File]::Open($partial, [System.IO.FileMode]::Create, [System.IO.FileAccess]::Write, [System.IO.FileShare]::None)
        try {
            $pack = New-Object System.IO.Compression.GZipStream($to, [System.IO.Compression.CompressionLevel]::Fastest, $true)
            try {
                $from.CopyTo($pack)
            }
            finally {
                # The end of the gzip file is written here.
                $pack.Dispose()
            }
            $to.Flush($true)
        }
        finally {
            $to.Dispose()
        }
        $hash = [BitConverter]::ToString($sha.Hash).Replace('-', '')
    }
    finally {
        $from.Dispose()
        $file.Dispose()
        $sha.Dispose()
    }
    if ((Get-PackedHash -Path $partial) -ne $hash) {
        [System.IO.File]::Delete($partial)
        throw "$Target reads back differently; the disk may be failing"
    }
    [System.IO.File]::Move($partial, $Target)
}

function Test-Archived {
    # Whether a gzip file holds the content of a file that was set aside. More may follow where that
    # is a copy: the log that it was made of went on. A damaged archive holds nothing.
    param([string]$Archive, [string]$Aside, [bool]$MoreMayFollow)
    $short = [System.IO.File]::Open($Aside, [System.IO.FileMode]::Open, [System.IO.FileAccess]::Read, [System.IO.FileShare]::Read)
    try {
        $file = [System.IO.File]::Open($Archive, [System.IO.FileMode]::Open, [System.IO.FileAccess]::Read, [System.IO.FileShare]::Read)
        $long = New-Object System.IO.Compression.GZipStream($file, [System.IO.Compression.CompressionMode]::Decompress)
        try {
            if (-not (Test-StreamStart -Long $long -Short $short)) { return $false }
            return $MoreMayFollow -or ($long.ReadByte() -lt 0)
        }
        catch {
            [Console]::Error.WriteLine("$Archive cannot be read: $(Get-ErrorText -ErrorRecord $_)")
            return $false
        }
        finally {
            $long.Dispose()
            $file.Dispose()
        }
    }
    finally {
        $short.Dispose()
    }
}

function Save-Archive {
    # Packs the set-aside content into an archive and returns its name; one that a killed run made
    # already is not made twice.
    param([string]$Aside, [string]$Folder, [string]$LogName, [string]$Day)
    $written = [System.IO.File]::GetLastWriteTimeUtc($Aside)
    $isCopy = [System.IO.Path]::GetFileName($Aside).StartsWith("$LogName.copy", [System.StringComparison]::Ordinal)
    foreach ($name in @(Get-FolderName -Folder $Folder)) {
        $path = Join-Path -Path $Folder -ChildPath $name
        if ((Get-ArchiveOrder -Name $name -LogName $LogName) -eq '') { continue }
        if ([System.IO.File]::GetLastWriteTimeUtc($path) -lt $written) { continue }
        if (Test-Archived -Archive $path -Aside $Aside -MoreMayFollow $isCopy) { return $name }
    }
    $name = Get-ArchiveName -LogName $LogName -Day $Day -Taken @(Get-TakenName -Folder $Folder)
    Save-Packed -Target (Join-Path -Path $Folder -ChildPath $name) -Source $Aside
    return $name
}

# --- taking the content away from the writer -----------------------------------------------------

function Get-ServiceEntry {
    # What Windows says of a service, or $null.
    param([string]$ServiceName)
    return (Get-CimInstance -ClassName Win32_Service -Filter "Name='$ServiceName'" -OperationTimeoutSec 15)
}

function Get-WriterProcess {
    # The process of the service that writes the log, or $null; one that hosts others is none.
    param([string]$ServiceName)
    if ($ServiceName -eq '') { return $null }
    try {
        $found = Get-ServiceEntry -ServiceName $ServiceName
        if (($null -eq $found) -or ($found.ServiceType -ne 'Own Process') -or ($found.ProcessId -eq 0)) { return $null }
        return [System.Diagnostics.Process]::GetProcessById([int]$found.ProcessId)
    }
    catch {
        [Console]::Error.WriteLine("the process of $ServiceName cannot be found: $(Get-ErrorText -ErrorRecord $_)")
        return $null
    }
}

function Get-HolderText {
    # Who has the log open, as far as the table of services tells.
    param([string]$ServiceName)
    $process = Get-WriterProcess -ServiceName $ServiceName
    if ($null -eq $process) { return "a program that is not the service '$ServiceName'" }
    return "$($process.ProcessName) (process $($process.Id), the service '$ServiceName') or another program"
}

function Initialize-Pause {
    # Windows' own calls to pause a whole process; PowerShell has none.
    if ($null -eq ('PillSnap.Pause' -as [type])) {
        $members = '[System.Runtime.InteropServices.DllImport("ntdll.dll")] public static extern int NtSuspendProcess(System.IntPtr process); [System.Runtime.InteropServices.DllImport("ntdll.dll")] public static extern int NtResumeProcess(System.IntPtr process);'
        Add-Type -Namespace 'PillSnap' -Name 'Pause' -MemberDefinition $members
    }
}

function Copy-Rest {
    # Copies what the log has beyond the copy; returns nothing.
    param([System.IO.Stream]$From, [System.IO.Stream]$To)
    $From.Position = $To.Length
    $To.Position = $To.Length
    $From.CopyTo($To)
    $To.Flush($true)
}

function Invoke-CutUnderWriter {
    # Copy, catch up, truncate; the writer is paused for the last look and the truncation.
    param([string]$LogPath, [string]$CopyPath, [object]$Writer)
    $share = [System.IO.FileShare]::ReadWrite -bor [System.IO.FileShare]::Delete
    $log = [System.IO.File]::Open($LogPath, [System.IO.FileMode]::Open, [System.IO.FileAccess]::ReadWrite, $share)
    try {
        $copy = [System.IO.File]::Open($CopyPath, [System.IO.FileMode]::CreateNew, [System.IO.FileAccess]::ReadWrite, [System.IO.FileShare]::Read)
        try {
            Copy-Rest -From $log -To $copy
            Copy-Rest -From $log -To $copy
            Invoke-LastLook -Log $log -Copy $copy -Writer $Writer
        }
        finally {
            $copy.Dispose()
        }
    }
    finally {
        $log.Dispose()
    }
}

function Invoke-LastLook {
    # What is in the log beyond the copy, then nothing: a paused writer writes nothing between.
    param([System.IO.Stream]$Log, [System.IO.Stream]$Copy, [object]$Writer)
    $paused = $false
    try {
        if ($null -ne $Writer) {
            $why = 'Windows refuses'
            try {
                $paused = ([PillSnap.Pause]::NtSuspendProcess($Writer.Handle) -eq 0)
            }
            catch {
                # It ended, or it belongs to an account that this one may not pause.
                $why = Get-ErrorText -ErrorRecord $_
            }
            if (-not $paused) { [Console]::Error.WriteLine("the writer could not be paused: $why") }
        }
        Copy-Rest -From $Log -To $Copy
        $Log.SetLength(0)
    }
    finally {
        if ($paused) { $null = [PillSnap.Pause]::NtResumeProcess($Writer.Handle) }
    }
}

function Invoke-RenameAlone {
    # Renames a log that nobody has open; returns whether it did.
    param([string]$LogPath, [string]$AsidePath)
    $alone = $null
    try {
        # Opens only where no other process has it open to read or write, and keeps it so.
        $alone = [System.IO.File]::Open($LogPath, [System.IO.FileMode]::Open, [System.IO.FileAccess]::ReadWrite, [System.IO.FileShare]::Delete)
        [System.IO.File]::Move($LogPath, $AsidePath)
        return $true
    }
    catch {
        return $false
    }
    finally {
        if ($null -ne $alone) { $alone.Dispose() }
    }
}

function Test-StreamStart {
    # Whether one stream begins with all that is in the other.
    param([System.IO.Stream]$Long, [System.IO.Stream]$Short)
    $mine = New-Object byte[] 24576
    $theirs = New-Object byte[] 24576
    while ($true) {
        $count = $Short.Read($mine, 0, $mine.Length)
        if ($count -eq 0) { return $true }
        $got = 0
        while ($got -lt $count) {
            $more = $Long.Read($theirs, $got, $count - $got)
            if ($more -eq 0) { return $false }
            $got += $more
        }
        if ([Convert]::ToBase64String($mine, 0, $count) -cne [Convert]::ToBase64String($theirs, 0, $count)) { return $false }
    }
}

function Test-StartsWith {
    # Whether the log still begins with all that the copy holds: it was not truncated then.
    param([string]$LogPath, [string]$CopyPath)
    if (-not [System.IO.File]::Exists($LogPath)) { return $false }
    $share = [System.IO.FileShare]::ReadWrite -bor [System.IO.FileShare]::Delete
    $copy = [System.IO.File]::Open($CopyPath, [System.IO.FileMode]::Open, [System.IO.FileAccess]::Read, [System.IO.FileShare]::Read)
    try {
        $log = [System.IO.File]::Open($LogPath, [System.IO.FileMode]::Open, [System.IO.FileAccess]::Read, $share)
        try {
            return (Test-StreamStart -Long $log -Short $copy)
        }
        finally {
            $log.Dispose()
        }
    }
    finally {
        $copy.Dispose()
    }
}

# --- one run -------------------------------------------------------------------------------------

function Get-LeftoverPath {
    # What lies where a run sets content aside, files and folders.
    param([string]$Folder, [string]$LogName)
    $pattern = '^' + [regex]::Escape($LogName) + '\.(copy|rotating)(-[0-9]+)?$'
    return @([System.IO.Directory]::GetFileSystemEntries($Folder) | ForEach-Object { if ([System.IO.Path]::GetFileName($_) -match $pattern) { $_ } })
}

function Invoke-Leftover {
    # Finishes what a killed run set aside; returns '' or why it is still there. A copy counts only
    # where the log was truncated after it.
    param([string]$Path, [string]$LogPath, [string]$LogName, [string]$Day)
    if ([System.IO.Directory]::Exists($Path)) { return 'a folder lies where the log is set aside; rename or remove it' }
    $isCopy = [System.IO.Path]::GetFileName($Path).StartsWith("$LogName.copy", [System.StringComparison]::Ordinal)
    $where = 'the log'
    try {
        if ((-not $isCopy) -or (-not (Test-StartsWith -LogPath $LogPath -CopyPath $Path))) {
            $where = Save-Archive -Aside $Path -Folder ([System.IO.Path]::GetDirectoryName($LogPath)) -LogName $LogName -Day $Day
        }
    }
    catch {
        return "a killed run left it, and it cannot be archived ($(Get-ErrorText -ErrorRecord $_)); it is tried again by the next run"
    }
    $why = Get-DeletionFailure -Path $Path
    if ($why -ne '') { return "all of it is in $where, and it cannot be deleted ($why); delete it" }
    if ($where -ne 'the log') { [Console]::Out.WriteLine("finished the rotation of a killed run: $where") }
    return ''
}

function Invoke-Recovery {
    # Finishes what killed runs left; returns how much of it is left still.
    param([string]$LogPath, [string]$Folder, [string]$LogName, [string]$Day)
    $left = 0
    foreach ($name in @(Get-FolderName -Folder $Folder)) {
        if ((-not $name.EndsWith('.partial')) -or ((Get-ArchiveOrder -Name ($name -replace '\.partial$', '') -LogName $LogName) -eq '')) { continue }
        $path = Join-Path -Path $Folder -ChildPath $name
        $why = Get-DeletionFailure -Path $path
        if ($why -eq '') { continue }
        $left += 1
        Write-Skipped -Path $path -Why "a killed run left it half written, and it cannot be deleted ($why); delete it"
    }
    foreach ($path in @(Get-LeftoverPath -Folder $Folder -LogName $LogName)) {
        $why = Invoke-Leftover -Path $path -LogPath $LogPath -LogName $LogName -Day $Day
        if ($why -eq '') { continue }
        $left += 1
        Write-Skipped -Path $path -Why $why
    }
    return $left
}

function Invoke-Prune {
    # Deletes all but the newest archives; returns which could not be deleted, told once.
    param([string]$Folder, [string]$LogName, [int]$Keep, [string[]]$Told = @())
    $skipped = @($Told)
    foreach ($name in @(Get-SurplusArchive -LogName $LogName -Names @(Get-FolderName -Folder $Folder) -Keep $Keep)) {
        if ($skipped -contains $name) { continue }
        $path = Join-Path -Path $Folder -ChildPath $name
        $why = Get-DeletionFailure -Path $path
        if ($why -eq '') {
            [Console]::Out.WriteLine("deleted $name")
        }
        else {
            $skipped += $name
            Write-Skipped -Path $path -Why "the newest $Keep are kept, and it cannot be deleted ($why); delete it"
        }
    }
    return $skipped
}

function Get-StateFailure {
    # Keeps from when the age counts; returns how many states could not be written.
    param([string]$Path, [long]$SinceS)
    try {
        Save-LastRotation -Path $Path -SinceS $SinceS
        return 0
    }
    catch {
        Write-Skipped -Path $Path -Why "it cannot be written ($(Get-ErrorText -ErrorRecord $_)); the log is rotated by its size alone until it can"
        return 1
    }
}

function Invoke-SetAside {
    # Takes the content away from whoever writes the log; returns the file that holds it now.
    param([hashtable]$Settings)
    $log = $Settings.LogPath
    $aside = Get-FreePath -Path "$log.rotating"
    Initialize-Writable -Path $log
    if (Invoke-RenameAlone -LogPath $log -AsidePath $aside) { return $aside }
    $writer = $null
    if (-not $Settings.NoPause) {
        $writer = Get-WriterProcess -ServiceName $Settings.ServiceName
        if ($null -ne $writer) { Initialize-Pause }
    }
    $copy = Get-FreePath -Path "$log.copy"
    try {
        Invoke-CutUnderWriter -LogPath $log -CopyPath $copy -Writer $writer
    }
    catch {
        if (-not (Test-Held -ErrorRecord $_)) { throw }
        throw "it is open in $(Get-HolderText -ServiceName $Settings.ServiceName), which lets nobody else write it ($(Get-ErrorText -ErrorRecord $_)); stop that program, or have it share its log for writing"
    }
    [System.IO.File]::Move($copy, $aside)
    return $aside
}

function Invoke-LogRotation {
    # Rotates a log that is due; returns the exit code. What makes room comes first.
    param([hashtable]$Settings, [scriptblock]$Ask)
    $log = $Settings.LogPath
    $folder = [System.IO.Path]::GetDirectoryName($log)
    $name = [System.IO.Path]::GetFileName($log)
    $now = [DateTimeOffset]::UtcNow
    $nowS = $now.ToUnixTimeSeconds()
    $day = $now.UtcDateTime.ToString('yyyyMMdd', [Globalization.CultureInfo]::InvariantCulture)
    $skipped = 0
    $kept = @()
    if (-not $Settings.DryRun) {
        $kept = @(Invoke-Prune -Folder $folder -LogName $name -Keep $Settings.Policy.keep)
        $skipped += Invoke-Recovery -LogPath $log -Folder $folder -LogName $name -Day $day
    }
    $skipped += Invoke-DueRotation -Settings $Settings -Ask $Ask -Folder $folder -Day $day -NowS $nowS
    if (-not $Settings.DryRun) { $kept = @(Invoke-Prune -Folder $folder -LogName $name -Keep $Settings.Policy.keep -Told $kept) }
    if (($skipped + $kept.Count) -gt 0) { return 9 }
    return 0
}

function Invoke-DueRotation {
    # Rotates the log if it is due and wanted; returns how much was left.
    param([hashtable]$Settings, [scriptblock]$Ask, [string]$Folder, [string]$Day, [long]$NowS)
    $log = $Settings.LogPath
    $state = "$log.rotation.json"
    if (-not [System.IO.File]::Exists($log)) {
        [Console]::Out.WriteLine("$log is not there: nothing to rotate")
        return 0
    }
    $skipped = 0
    $since = Read-LastRotation -Path $state -NowS $NowS
    if ((-not $Settings.DryRun) -and ($since -eq $NowS)) { $skipped = Get-StateFailure -Path $state -SinceS $NowS }
    $size = (New-Object System.IO.FileInfo($log)).Length
    $due = Get-DueReason -SizeBytes $size -AgeDays (($NowS - $since) / 86400) -Policy $Settings.Policy
    if ($due -eq '') {
        [Console]::Out.WriteLine("$log is not due: $size bytes")
        return $skipped
    }
    if (-not (& $Ask "$log ($size bytes, due by $due)")) { return $skipped }
    $aside = Invoke-SetAside -Settings $Settings
    $made = Save-Archive -Aside $aside -Folder $Folder -LogName ([System.IO.Path]::GetFileName($log)) -Day $Day
    [Console]::Out.WriteLine("rotated $log (due by $due) into $made")
    $skipped = Get-StateFailure -Path $state -SinceS $NowS
    $why = Get-DeletionFailure -Path $aside
    if ($why -ne '') {
        $skipped += 1
        Write-Skipped -Path $aside -Why "all of it is in $made, and it cannot be deleted ($why); delete it"
    }
    return $skipped
}

function Invoke-Rotation {
    # One run under its lock; returns the exit code.
    param([hashtable]$Settings, [scriptblock]$Ask)
    $folder = [System.IO.Path]::GetDirectoryName($Settings.LogPath)
    if (-not [System.IO.Directory]::Exists($folder)) {
        [Console]::Error.WriteLine("error: $folder is not there; expected the folder of the log (-LogPath)")
        return 2
    }
    $lock = $null
    try {
        $lock = Open-RunLock -Path "$($Settings.LogPath).lock"
        if ($null -eq $lock) {
            [Console]::Error.WriteLine("error: $($Settings.LogPath).lock is held by another run")
            return 6
        }
        # What reading this script left is not kept while a log goes through.
        [System.GC]::Collect()
        return (Invoke-LogRotation -Settings $Settings -Ask $Ask)
    }
    catch {
        [Console]::Error.WriteLine("error: $($Settings.LogPath) is not rotated, and nothing of it is lost: $(Get-ErrorText -ErrorRecord $_)")
        return 1
    }
    finally {
        if ($null -ne $lock) { $lock.Dispose() }
    }
}

if ($MyInvocation.InvocationName -ne '.') {
    $settings = @{
        LogPath     = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($LogPath)
        ServiceName = $ServiceName
        NoPause     = [bool]$NoPause
        DryRun      = [bool]$WhatIfPreference
        Policy      = @{ max_bytes = $MaxMB * 1MB; max_days = $MaxDays; keep = $Keep }
    }
    $cmdlet = $PSCmdlet
    $ask = { param($What) $cmdlet.ShouldProcess($What, 'rotate') }.GetNewClosure()
    exit (Invoke-Rotation -Settings $settings -Ask $ask)
}
