#Requires -Version 5.1
<#
.SYNOPSIS
    Installs, renews or removes the two scheduled tasks: the health watch (each minute) and the
    rotation of cloudflared.log (03:00 daily).

.DESCRIPTION
    Copies health_watch.ps1 and rotate_logs.ps1 to a folder on this machine and registers both as
    tasks of the system. The parameters of both scripts are given here, under their own names, and
    checked here; only -LogPath, which both have, is -HealthLogPath and -RotateLogPath. What is not
    given is left to the script. Running it again renews the tasks; nothing is registered twice. A
    run that still goes on is not started again beside itself, and each task has its own time limit
    instead of the three days that Windows gives by default, after which a hung run would still be
    in the way. -WhatIf shows what would be done.

    Exit codes: 0 done; 2 a word that is no parameter, or a value that no task can be given; 1 it
    could not be done, or PowerShell refused a parameter. See docs/WINDOWS.md.

.EXAMPLE
    .\Register-Tasks.ps1 -WhatIf

.EXAMPLE
    .\Register-Tasks.ps1 -RestartOn External -Webhook env:HEALTH_WEBHOOK -Keep 20

.EXAMPLE
    .\Register-Tasks.ps1 -Remove
#>
[CmdletBinding(SupportsShouldProcess = $true, PositionalBinding = $false)]
param(
    # Remove both tasks; the copied scripts stay.
    [switch]$Remove,
    # Where the scripts are copied to; only administrators may be able to write there.
    [string]$InstallFolder = 'C:\ProgramData\Cloudflare\cloudflared\scripts',
    # Local time of the rotation, each day.
    [ValidatePattern('^([01][0-9]|2[0-3]):[0-5][0-9]$')][string]$RotateAt = '03:00',
    # SYSTEM, or an account whose WSL distribution a restart command needs.
    [string]$UserId = 'SYSTEM',

    # Of health_watch.ps1.
    [string]$InternalUrl,
    [string]$ExternalUrl,
    [ValidateRange(1, 60)][int]$TimeoutSeconds,
    [ValidateRange(1, 1000)][int]$Failures,
    [ValidateRange(1, 1000)][int]$Successes,
    [ValidateSet('Any', 'External')][string]$RestartOn,
    # Of both; where it is empty the watch restarts nothing, and the rotation keeps its own default.
    [string]$ServiceName,
    [string]$RestartCommand,
    [ValidateRange(1, 120)][int]$RestartTimeoutSeconds,
    [ValidateRange(0, 60)][int]$SettleSeconds,
    [ValidateRange(0, 60)][int]$MaxRestartsPerHour,
    [ValidatePattern('^(env:[A-Za-z_][A-Za-z0-9_]*)?$')][string]$Webhook,
    [string]$EventSource,
    [string]$HealthLogPath,
    [ValidateRange(1, 1024)][int]$MaxLogMB,
    [string]$StatePath,

    # Of rotate_logs.ps1.
    [switch]$NoPause,
    [string]$RotateLogPath,
    [ValidateRange(1, 1048576)][int]$MaxMB,
    [ValidateRange(1, 3650)][int]$MaxDays,
    [ValidateRange(1, 10000)][int]$Keep,

    # What fits no parameter, to be refused in one line.
    [Parameter(ValueFromRemainingArguments = $true, DontShow = $true)][object[]]$Unknown
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$TaskFolder = '\PillSnap\'

# --- what a task is given ------------------------------------------------------------------------

function Get-TaskPlan {
    # What is registered: name, script, its words, when, and how long one run may take.
    param([hashtable]$Given, [string]$RotateAt)
    $watch = @(
        'InternalUrl', 'ExternalUrl', 'TimeoutSeconds', 'Failures', 'Successes', 'RestartOn', 'ServiceName', 'RestartCommand'
        'RestartTimeoutSeconds', 'SettleSeconds', 'MaxRestartsPerHour', 'Webhook', 'EventSource', 'LogPath', 'MaxLogMB', 'StatePath'
    )
    $rotation = @('NoPause', 'LogPath', 'MaxMB', 'MaxDays', 'Keep', 'ServiceName')
    $rotated = $Given.Clone()
    if ($rotated['ServiceName'] -eq '') { $rotated.Remove('ServiceName') }
    return @(
        @{
            name          = 'HealthWatch'
            script        = 'health_watch.ps1'
            words         = Get-TaskWord -Given $Given -Names $watch -Prefix 'Health'
            every_minutes = 1
            at            = ''
            limit_minutes = 15
            about         = 'Asks app and tunnel each minute, restarts the tunnel, tells people.'
        }
        @{
            name          = 'RotateLogs'
            script        = 'rotate_logs.ps1'
            words         = Get-TaskWord -Given $rotated -Names $rotation -Prefix 'Rotate'
            every_minutes = 0
            at            = $RotateAt
            limit_minutes = 120
            about         = 'Rotates cloudflared.log when it is large or old; keeps the newest archives.'
        }
    )
}

function Get-TaskWord {
    # The parameters of one script that were given, as its command line has them.
    param([hashtable]$Given, [string[]]$Names, [string]$Prefix)
    $words = @()
    foreach ($name in $Names) {
        $own = $name
        if ($name -eq 'LogPath') { $own = "$Prefix$name" }
        if (-not $Given.ContainsKey($own)) { continue }
        if ($Given[$own] -is [switch]) {
            if ($Given[$own]) { $words += "-$name" }
        }
        else {
            $words += "-$name " + (Get-QuotedWord -Text ([string]$Given[$own]))
        }
    }
    return $words -join ' '
}

function Get-QuotedWord {
    # One word of a command line, by the rules that programs take it apart with: backslashes count
    # only before a quote.
    param([string]$Text)
    if ($Text -match '^[A-Za-z0-9_.:/\\-]+$') { return $Text }
    return '"' + (($Text -replace '(\\*)"', '$1$1\"') -replace '(\\+)$', '$1$1') + '"'
}

function Get-CommandArgument {
    # What powershell.exe is given to run a script.
    param([string]$Script, [string]$Words)
    return ('-NoProfile -NonInteractive -ExecutionPolicy Bypass -File "{0}" {1}' -f $Script, $Words).Trim()
}

function Get-Refusal {
    # Why no task can be made of what was typed; '' where one can.
    param([hashtable]$Given, [object[]]$Unknown)
    foreach ($word in $Unknown) {
        if ($word -match '^-(Health|Rotate)Arguments\b') {
            return "$word is gone: give the scripts' own parameters here, such as -Webhook, -RestartOn, -RestartCommand or -Keep"
        }
    }
    if ($Unknown.Count -gt 0) { return "$($Unknown[0]) is no parameter; Get-Help names them: Get-Help .\Register-Tasks.ps1 -Full" }
    foreach ($name in @('InternalUrl', 'ExternalUrl')) {
        $url = $Given[$name]
        if ($url -and ($url -notmatch '^https?://[^/\s]+')) { return "$url is no address; expected http://host/path or https://host/path" }
    }
    if ($Given['InternalUrl'] -eq '') { return '-InternalUrl is empty; expected the address of the app' }
    foreach ($name in $Given.Keys) {
        if ($Given[$name] -isnot [string]) { continue }
        if ($Given[$name] -match '^-|[\x00-\x1f]') { return "-${name}: a task can be given no value that begins with a dash or holds a line end" }
    }
    return ''
}

function Get-FullPath {
    # Paths count from where the caller is; a task begins elsewhere.
    param([string]$Folder, [string]$Path)
    return [System.IO.Path]::GetFullPath([System.IO.Path]::Combine($Folder, $Path))
}

function Get-WhenText {
    param([hashtable]$Task)
    if ($Task.every_minutes -eq 1) { return 'each minute' }
    return "daily at $($Task.at)"
}

# --- the Task Scheduler --------------------------------------------------------------------------

function Get-EnginePath {
    # Windows PowerShell by its full path: a task of the system runs nothing that lies nearer.
    return Join-Path -Path $env:SystemRoot -ChildPath 'System32\WindowsPowerShell\v1.0\powershell.exe'
}

function Test-Registered {
    param([string]$Name, [string]$Folder)
    return $null -ne (Get-ScheduledTask -TaskName $Name -TaskPath $Folder -ErrorAction SilentlyContinue)
}

function Save-Task {
    # Registers one task: an earlier one of this name is replaced.
    param([hashtable]$Task, [string]$Argument, [string]$UserId, [string]$Folder)
    # Another account than the system's runs without its password being kept.
    $logon = 'S4U'
    if ($UserId -eq 'SYSTEM') { $logon = 'ServiceAccount' }
    # A trigger without an end: no repetition duration means for ever.
    $trigger = @{ Daily = $true; At = $Task.at }
    if ($Task.every_minutes -gt 0) {
        $trigger = @{ Once = $true; At = (Get-Date).Date; RepetitionInterval = (New-TimeSpan -Minutes $Task.every_minutes) }
    }
    $options = @{
        MultipleInstances          = 'IgnoreNew'
        ExecutionTimeLimit         = New-TimeSpan -Minutes $Task.limit_minutes
        StartWhenAvailable         = $true
        AllowStartIfOnBatteries    = $true
        DontStopIfGoingOnBatteries = $true
    }
    $registration = @{
        TaskName    = $Task.name
        TaskPath    = $Folder
        Description = $Task.about
        Action      = New-ScheduledTaskAction -Execute (Get-EnginePath) -Argument $Argument
        Trigger     = New-ScheduledTaskTrigger @trigger
        Settings    = New-ScheduledTaskSettingsSet @options
        Principal   = New-ScheduledTaskPrincipal -UserId $UserId -LogonType $logon -RunLevel Highest
        Force       = $true
    }
    $null = Register-ScheduledTask @registration
}

function Invoke-Install {
    param([hashtable]$Settings, [scriptblock]$Ask)
    foreach ($task in $Settings.Tasks) {
        $source = Join-Path -Path $Settings.SourceFolder -ChildPath $task.script
        if (-not (Test-Path -LiteralPath $source)) { throw "$source is not there; expected it beside Register-Tasks.ps1" }
    }
    foreach ($task in $Settings.Tasks) {
        $source = Join-Path -Path $Settings.SourceFolder -ChildPath $task.script
        $target = Join-Path -Path $Settings.InstallFolder -ChildPath $task.script
        if (& $Ask $target "copy $source") {
            $null = [System.IO.Directory]::CreateDirectory($Settings.InstallFolder)
            if ([System.IO.Path]::GetFullPath($source) -ne [System.IO.Path]::GetFullPath($target)) {
                [System.IO.File]::Copy($source, $target, $true)
            }
        }
        $when = Get-WhenText -Task $task
        $argument = Get-CommandArgument -Script $target -Words $task.words
        if (& $Ask "$TaskFolder$($task.name)" "register as $($Settings.UserId), ${when}: powershell.exe $argument") {
            Save-Task -Task $task -Argument $argument -UserId $Settings.UserId -Folder $TaskFolder
            [Console]::Out.WriteLine("$TaskFolder$($task.name): registered, $when")
        }
    }
}

function Invoke-Removal {
    param([hashtable]$Settings, [scriptblock]$Ask)
    foreach ($task in $Settings.Tasks) {
        if (-not (Test-Registered -Name $task.name -Folder $TaskFolder)) {
            [Console]::Out.WriteLine("$TaskFolder$($task.name): not registered")
        }
        elseif (& $Ask "$TaskFolder$($task.name)" 'remove') {
            Unregister-ScheduledTask -TaskName $task.name -TaskPath $TaskFolder -Confirm:$false
            [Console]::Out.WriteLine("$TaskFolder$($task.name): removed")
        }
    }
}

if ($MyInvocation.InvocationName -ne '.') {
    $given = @{} + $PSBoundParameters
    $refusal = Get-Refusal -Given $given -Unknown @($Unknown | Where-Object { $null -ne $_ })
    if ($refusal -ne '') {
        [Console]::Error.WriteLine("error: $refusal")
        exit 2
    }
    try {
        $here = $ExecutionContext.SessionState.Path.CurrentFileSystemLocation.ProviderPath
        foreach ($name in @('HealthLogPath', 'StatePath', 'RotateLogPath')) {
            if ($given.ContainsKey($name)) { $given[$name] = Get-FullPath -Folder $here -Path $given[$name] }
        }
        $settings = @{
            SourceFolder  = $PSScriptRoot
            InstallFolder = Get-FullPath -Folder $here -Path $InstallFolder
            UserId        = $UserId
            Tasks         = @(Get-TaskPlan -Given $given -RotateAt $RotateAt)
        }
        $cmdlet = $PSCmdlet
        $ask = { param($Target, $What) $cmdlet.ShouldProcess($Target, $What) }.GetNewClosure()
        if ($Remove) {
            Invoke-Removal -Settings $settings -Ask $ask
        }
        else {
            Invoke-Install -Settings $settings -Ask $ask
        }
    }
    catch {
        [Console]::Error.WriteLine("error: $($_.Exception.Message)")
        exit 1
    }
}
