#Requires -Version 5.1
<#
.SYNOPSIS
    Installs, renews or removes the two scheduled tasks: the health watch (each minute) and the
    rotation of cloudflared.log (03:00 daily).

.DESCRIPTION
    Copies health_watch.ps1 and rotate_logs.ps1 to a folder on this machine and registers both as
    tasks of the system. Running it again renews them; nothing is registered twice. A run that
    still goes on is not started again beside itself, and each task has its own time limit instead
    of the three days that Windows gives by default, after which a hung run would still be in the
    way. -WhatIf shows what would be done. See docs/HEALTH.md.

.EXAMPLE
    .\Register-Tasks.ps1 -WhatIf

.EXAMPLE
    .\Register-Tasks.ps1 -HealthArguments "-RestartOn External -Webhook env:HEALTH_WEBHOOK"

.EXAMPLE
    .\Register-Tasks.ps1 -Remove
#>
[CmdletBinding(SupportsShouldProcess = $true)]
param(
    # Remove both tasks; the copied scripts stay.
    [switch]$Remove,
    # Where the scripts are copied to; only administrators may be able to write there.
    [string]$InstallFolder = 'C:\ProgramData\Cloudflare\cloudflared\scripts',
    # More parameters for health_watch.ps1, as they would be typed.
    [string]$HealthArguments = '',
    # More parameters for rotate_logs.ps1.
    [string]$RotateArguments = '',
    [ValidatePattern('^([01][0-9]|2[0-3]):[0-5][0-9]$')][string]$RotateAt = '03:00',
    # SYSTEM, or an account whose WSL distribution a restart command needs.
    [string]$UserId = 'SYSTEM'
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$TaskFolder = '\PillSnap\'

function Get-TaskPlan {
    # What is registered: name, script, parameters, when, and how long one run may take.
    param([string]$HealthArguments, [string]$RotateArguments, [string]$RotateAt)
    return @(
        @{
            name         = 'HealthWatch'
            script       = 'health_watch.ps1'
            arguments    = $HealthArguments
            every_minute = $true
            at           = ''
            limit        = New-TimeSpan -Minutes 15
            about        = 'Asks app and tunnel each minute, restarts the tunnel, tells people.'
        }
        @{
            name         = 'RotateLogs'
            script       = 'rotate_logs.ps1'
            arguments    = $RotateArguments
            every_minute = $false
            at           = $RotateAt
            limit        = New-TimeSpan -Hours 2
            about        = 'Rotates cloudflared.log at 100 MB or 7 days; keeps 10 archives.'
        }
    )
}

function Get-CommandArgument {
    # What powershell.exe is given to run a script.
    param([string]$Script, [string]$Arguments)
    return ('-NoProfile -NonInteractive -ExecutionPolicy Bypass -File "{0}" {1}' -f $Script, $Arguments).Trim()
}

function Get-WhenText {
    param([hashtable]$Task)
    if ($Task.every_minute) { return 'each minute' }
    return "daily at $($Task.at)"
}

function Get-Trigger {
    # A trigger without an end: no repetition duration means for ever.
    param([hashtable]$Task)
    if ($Task.every_minute) {
        return (New-ScheduledTaskTrigger -Once -At (Get-Date).Date -RepetitionInterval (New-TimeSpan -Minutes 1))
    }
    return (New-ScheduledTaskTrigger -Daily -At $Task.at)
}

function Get-Principal {
    # Another account than the system's runs without its password being kept.
    param([string]$UserId)
    if ($UserId -eq 'SYSTEM') {
        return (New-ScheduledTaskPrincipal -UserId 'SYSTEM' -LogonType ServiceAccount -RunLevel Highest)
    }
    return (New-ScheduledTaskPrincipal -UserId $UserId -LogonType S4U -RunLevel Highest)
}

function Invoke-Registration {
    # Renews one task: an earlier one of this name is replaced.
    param([hashtable]$Task, [string]$InstallFolder, [string]$UserId, [string]$TaskFolder)
    $program = Join-Path -Path $env:SystemRoot -ChildPath 'System32\WindowsPowerShell\v1.0\powershell.exe'
    $copied = Join-Path -Path $InstallFolder -ChildPath $Task.script
    $argument = Get-CommandArgument -Script $copied -Arguments $Task.arguments
    $action = New-ScheduledTaskAction -Execute $program -Argument $argument
    $options = @{
        MultipleInstances          = 'IgnoreNew'
        ExecutionTimeLimit         = $Task.limit
        StartWhenAvailable         = $true
        AllowStartIfOnBatteries    = $true
        DontStopIfGoingOnBatteries = $true
    }
    $registration = @{
        TaskName    = $Task.name
        TaskPath    = $TaskFolder
        Description = $Task.about
        Action      = $action
        Trigger     = Get-Trigger -Task $Task
        Settings    = New-ScheduledTaskSettingsSet @options
        Principal   = Get-Principal -UserId $UserId
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
        $line = Get-CommandArgument -Script $target -Arguments $task.arguments
        if (& $Ask "$TaskFolder$($task.name)" "register as $($Settings.UserId), ${when}: powershell.exe $line") {
            Invoke-Registration -Task $task -InstallFolder $Settings.InstallFolder -UserId $Settings.UserId -TaskFolder $TaskFolder
            [Console]::Out.WriteLine("$TaskFolder$($task.name): registered, $when")
        }
    }
}

function Invoke-Removal {
    param([hashtable]$Settings, [scriptblock]$Ask)
    foreach ($task in $Settings.Tasks) {
        $found = Get-ScheduledTask -TaskName $task.name -TaskPath $TaskFolder -ErrorAction SilentlyContinue
        if ($null -eq $found) {
            [Console]::Out.WriteLine("$TaskFolder$($task.name): not registered")
        }
        elseif (& $Ask "$TaskFolder$($task.name)" 'remove') {
            Unregister-ScheduledTask -TaskName $task.name -TaskPath $TaskFolder -Confirm:$false
            [Console]::Out.WriteLine("$TaskFolder$($task.name): removed")
        }
    }
}

if ($MyInvocation.InvocationName -ne '.') {
    try {
        $settings = @{
            SourceFolder  = $PSScriptRoot
            InstallFolder = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($InstallFolder)
            UserId        = $UserId
            Tasks         = @(Get-TaskPlan -HealthArguments $HealthArguments -RotateArguments $RotateArguments -RotateAt $RotateAt)
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
