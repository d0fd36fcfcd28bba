#Requires -Version 5.1
# Pester 5: what is typed at the installer lands in the tasks, and what the Task Scheduler is handed.
# On Windows, tag `Windows`, the tasks are registered, renewed and removed for real: on a machine
# whose Task Scheduler may be used, such as a runner of the workflow.

BeforeDiscovery {
    $refused = @(
        @{ given = @{}; unknown = @('-HealthArguments', '-Webhook env:X'); says = '-HealthArguments is gone: .*-Webhook, -RestartOn, -RestartCommand' }
        @{ given = @{}; unknown = @('-RotateArguments', '-Keep 3'); says = '-RotateArguments is gone: .*-Keep' }
        @{ given = @{}; unknown = @('-Kep', 3); says = '-Kep is no parameter' }
        @{ given = @{}; unknown = @('stray'); says = 'stray is no parameter' }
        @{ given = @{ ExternalUrl = 'api.pillsnap.co.kr' }; unknown = @(); says = 'api.pillsnap.co.kr is no address' }
        @{ given = @{ InternalUrl = '' }; unknown = @(); says = '-InternalUrl is empty' }
        @{ given = @{ EventSource = '-a:b' }; unknown = @(); says = '-EventSource: a task can be given no value that begins with a dash' }
        @{ given = @{ RestartCommand = "a`r`nb" }; unknown = @(); says = '-RestartCommand: .*line end' }
        @{ given = @{ ExternalUrl = ''; RestartCommand = 'cmd /c x'; Keep = 3 }; unknown = @(); says = '^$' }
    )
}

BeforeAll {
    $root = Split-Path -Path (Split-Path -Path $PSScriptRoot -Parent) -Parent
    $scripts = Join-Path -Path $root -ChildPath 'scripts'
    $installer = Join-Path -Path $scripts -ChildPath 'Register-Tasks.ps1'
    . $installer

    function Get-Parsed {
        param([string]$Path)
        return [System.Management.Automation.Language.Parser]::ParseFile($Path, [ref]$null, [ref]$null)
    }

    function Get-Outcome {
        # What a program with these words prints: each of its arguments in brackets.
        param([string]$Program, [string]$Argument)
        $info = New-Object System.Diagnostics.ProcessStartInfo
        $info.FileName = $Program
        $info.Arguments = $Argument
        $info.UseShellExecute = $false
        $info.RedirectStandardOutput = $true
        $process = [System.Diagnostics.Process]::Start($info)
        $out = $process.StandardOutput.ReadToEnd()
        $process.WaitForExit()
        return $out
    }

    function Get-Installed {
        # Runs the installation with the Task Scheduler stood in for; what it was handed.
        param([hashtable]$Given, [string]$UserId, [string]$Folder)
        $handed = New-Object System.Collections.ArrayList
        Mock -CommandName Save-Task -MockWith { $null = $handed.Add(@{ task = $Task; argument = $Argument; user = $UserId; folder = $Folder }) }
        $plan = @(Get-TaskPlan -Given $Given -RotateAt '04:30')
        $settings = @{ SourceFolder = $scripts; InstallFolder = $Folder; UserId = $UserId; Tasks = $plan }
        Invoke-Install -Settings $settings -Ask { param($Target, $What) $null = $Target, $What; $true }
        return , $handed
    }

    $engine = (Get-Process -Id $PID).Path
    # PowerShell does its own parsing behind -File; this prints what came out of the words before.
    $printer = Join-Path -Path $TestDrive -ChildPath 'print.ps1'
    [System.IO.File]::WriteAllText($printer, '[Console]::Out.Write(((@($args) | ForEach-Object { "[$_]" }) -join ""))')
}

Describe 'a word' {
    It 'comes out of a command line as it was' {
        $texts = @(
            'plain', 'C:\tools\cf.ps1', 'two words', '', 'a "quoted" word', 'ends in a backslash\', 'C:\with blank\', '\\server\share\',
            'back\"slash before a quote', 'two\\"before', '"', '\', '\\', 'a''b', 'semi;colon & more | even > these', '%PATH% $x `y ^z', 'tail\\\'
        )
        $quoted = @($texts | ForEach-Object { Get-QuotedWord -Text $_ }) -join ' '
        $expected = @($texts | ForEach-Object { "[$_]" }) -join ''
        Get-Outcome -Program $engine -Argument "-NoProfile -File `"$printer`" $quoted" | Should -BeExactly $expected
    }
}

Describe 'what is typed' {
    It 'is refused in one line where no task can be made of it: <says>' -ForEach $refused {
        $said = Get-Refusal -Given $given -Unknown $unknown
        $said | Should -Match $says
        $said | Should -Not -Match "`n"
    }

    It 'has the types, the checks and the names of <script>' -ForEach @(
        @{ script = 'health_watch.ps1'; prefix = 'Health' }
        @{ script = 'rotate_logs.ps1'; prefix = 'Rotate' }
    ) {
        $own = @{}
        foreach ($one in (Get-Parsed -Path $installer).ParamBlock.Parameters) {
            $own[$one.Name.VariablePath.UserPath] = ($one.Attributes | ForEach-Object { $_.Extent.Text }) -join ''
        }
        $given = @{}
        $names = @()
        foreach ($one in (Get-Parsed -Path (Join-Path -Path $scripts -ChildPath $script)).ParamBlock.Parameters) {
            $name = $one.Name.VariablePath.UserPath
            $typed = $name
            if ($name -eq 'LogPath') { $typed = "$prefix$name" }
            $own[$typed] | Should -BeExactly (($one.Attributes | ForEach-Object { $_.Extent.Text }) -join '') -Because $name
            $given[$typed] = '1'
            $names += "-$name 1"
        }
        $task = Get-TaskPlan -Given $given -RotateAt '03:00' | Where-Object { $_.script -eq $script }
        foreach ($name in $names) { " $($task.words) " | Should -Match ([regex]::Escape(" $name ")) }
        @($task.words -split ' -').Count | Should -Be $names.Count
    }

    It 'arrives at the parameters of <script> as it was typed' -ForEach @(
        @{ script = 'health_watch.ps1'; given = @{
                ExternalUrl = ''; Failures = 3; RestartOn = 'External'; Webhook = 'env:HEALTH_WEBHOOK'; StatePath = 'C:\a folder\'
                RestartCommand = 'powershell.exe -NoProfile -File "C:\my tools\cf_restart.ps1" -TunnelId x'; HealthLogPath = 'C:\a "b"\c.log'
            }
        }
        @{ script = 'rotate_logs.ps1'; given = @{ NoPause = [switch]$true; MaxMB = 20; Keep = 3; ServiceName = 'a service'; RotateLogPath = 'C:\x y\z.log' } }
    ) {
        $parameters = (Get-Parsed -Path (Join-Path -Path $scripts -ChildPath $script)).ParamBlock.Extent.Text
        $copied = Join-Path -Path $TestDrive -ChildPath $script
        $show = 'foreach ($name in @($PSBoundParameters.Keys)) { [Console]::Out.Write("$name=$($PSBoundParameters[$name])`n") }'
        [System.IO.File]::WriteAllText($copied, "[CmdletBinding()]`n$parameters`n$show")
        $task = Get-TaskPlan -Given $given -RotateAt '03:00' | Where-Object { $_.script -eq $script }
        $out = Get-Outcome -Program $engine -Argument (Get-CommandArgument -Script $copied -Words $task.words)
        $lines = @($out.TrimEnd("`n") -split "`n")
        foreach ($name in $given.Keys) {
            $lines | Should -Contain ('{0}={1}' -f ($name -replace '^(Health|Rotate)(LogPath)$', '$2'), $given[$name])
        }
        $lines.Count | Should -Be $given.Count
    }

    It 'counts paths from where the caller is' {
        $here = Join-Path -Path $TestDrive -ChildPath 'here'
        Get-FullPath -Folder $here -Path 'x.log' | Should -BeExactly (Join-Path -Path $here -ChildPath 'x.log')
        Get-FullPath -Folder $here -Path $installer | Should -BeExactly $installer
    }
}

Describe 'the tasks' {
    BeforeAll { $folder = Join-Path -Path $TestDrive -ChildPath 'an installation' }

    It 'are two, each with its script, its time and its limit, as the system' {
        $handed = Get-Installed -Given @{ RestartOn = 'External'; Keep = 3; ServiceName = '' } -UserId 'SYSTEM' -Folder $folder
        $handed.Count | Should -Be 2
        $watch, $rotation = $handed
        $start = '-NoProfile -NonInteractive -ExecutionPolicy Bypass -File'
        $paths = @('health_watch.ps1', 'rotate_logs.ps1' | ForEach-Object { Join-Path -Path $folder -ChildPath $_ })
        $watch.argument | Should -BeExactly "$start `"$($paths[0])`" -RestartOn External -ServiceName `"`""
        $rotation.argument | Should -BeExactly "$start `"$($paths[1])`" -Keep 3"
        @($watch.task.name, $watch.task.every_minutes, $watch.task.limit_minutes) -join ' ' | Should -BeExactly 'HealthWatch 1 15'
        @($rotation.task.name, $rotation.task.at, $rotation.task.limit_minutes) -join ' ' | Should -BeExactly 'RotateLogs 04:30 120'
        @($handed | ForEach-Object { $_.user + $_.folder }) -join ' ' | Should -BeExactly 'SYSTEM\PillSnap\ SYSTEM\PillSnap\'
        foreach ($path in $paths) { Test-Path -LiteralPath $path | Should -BeTrue }
    }

    It 'end a run of the watch after the longest that its parameters allow' {
        $longest = @{}
        foreach ($one in (Get-Parsed -Path (Join-Path -Path $scripts -ChildPath 'health_watch.ps1')).ParamBlock.Parameters) {
            foreach ($range in @($one.Attributes | Where-Object { $_.TypeName.Name -eq 'ValidateRange' })) {
                $longest[$one.Name.VariablePath.UserPath] = [int]$range.PositionalArguments[1].Value
            }
        }
        $checks = 2 * $longest.TimeoutSeconds
        $restart = 4 * $longest.RestartTimeoutSeconds + 15 + 10 + 15
        $whole = $checks + $restart + $longest.SettleSeconds + $checks + $longest.TimeoutSeconds
        $whole | Should -BeLessThan (60 * (Get-TaskPlan -Given @{} -RotateAt '03:00')[0].limit_minutes)
    }

    It 'are handed to the Task Scheduler as <user>, who is logged on by <logon>' -ForEach @(
        @{ user = 'SYSTEM'; logon = 'ServiceAccount' }
        @{ user = 'HOST\somebody'; logon = 'S4U' }
    ) {
        # With the names that the cmdlets have: another one is an error here as well.
        function New-ScheduledTaskAction { param($Execute, $Argument) @{ execute = $Execute; argument = $Argument } }
        function New-ScheduledTaskTrigger { param([switch]$Once, [switch]$Daily, [datetime]$At, [timespan]$RepetitionInterval) $PSBoundParameters }
        function New-ScheduledTaskPrincipal { param($UserId, $LogonType, $RunLevel) "$UserId $LogonType $RunLevel" }
        function New-ScheduledTaskSettingsSet {
            param($MultipleInstances, [timespan]$ExecutionTimeLimit, [switch]$StartWhenAvailable, [switch]$AllowStartIfOnBatteries, [switch]$DontStopIfGoingOnBatteries)
            $PSBoundParameters
        }
        $seen = New-Object System.Collections.ArrayList
        function Register-ScheduledTask {
            param($TaskName, $TaskPath, $Description, $Action, $Trigger, $Settings, $Principal, [switch]$Force)
            $null = $seen.Add($PSBoundParameters)
            $null = $TaskName, $TaskPath, $Description, $Action, $Trigger, $Settings, $Principal, $Force
        }
        Mock -CommandName Get-EnginePath -MockWith { 'the engine' }
        foreach ($task in (Get-TaskPlan -Given @{} -RotateAt '04:30')) { Save-Task -Task $task -Argument 'the words' -UserId $user -Folder '\PillSnap\' }
        $watch, $rotation = $seen
        foreach ($one in $seen) {
            $one.TaskPath | Should -BeExactly '\PillSnap\'
            $one.Action.execute, $one.Action.argument | Should -BeExactly @('the engine', 'the words')
            $one.Principal | Should -BeExactly "$user $logon Highest"
            $one.Settings.MultipleInstances | Should -BeExactly 'IgnoreNew'
            @($one.Force, $one.Settings.StartWhenAvailable, $one.Settings.AllowStartIfOnBatteries, $one.Settings.DontStopIfGoingOnBatteries) | Should -Not -Contain $false
        }
        $watch.Settings.ExecutionTimeLimit.TotalMinutes | Should -Be 15
        $watch.Trigger.RepetitionInterval.TotalMinutes | Should -Be 1
        $watch.Trigger.At | Should -Be (Get-Date).Date
        $rotation.Settings.ExecutionTimeLimit.TotalHours | Should -Be 2
        $rotation.Trigger.Daily | Should -BeTrue
        $rotation.Trigger.At.TimeOfDay.TotalHours | Should -Be 4.5
    }

    It 'are removed where they are registered, and removing again is no error' {
        function Unregister-ScheduledTask { [CmdletBinding(SupportsShouldProcess = $true)] param($TaskName, $TaskPath) $null = $gone.Add("$TaskPath$TaskName") }
        $gone = New-Object System.Collections.ArrayList
        Mock -CommandName Test-Registered -MockWith { $Name -eq 'RotateLogs' }
        $settings = @{ Tasks = @(Get-TaskPlan -Given @{} -RotateAt '03:00') }
        Invoke-Removal -Settings $settings -Ask { param($Target, $What) $null = $Target, $What; $true }
        $gone -join ' ' | Should -BeExactly '\PillSnap\RotateLogs'
    }

    It 'are only shown with -WhatIf' {
        Mock -CommandName Save-Task -MockWith { throw 'registered' }
        $nowhere = Join-Path -Path $TestDrive -ChildPath 'nowhere'
        & $installer -InstallFolder $nowhere -WhatIf
        Test-Path -Path $nowhere | Should -BeFalse
    }
}

Describe 'in the Task Scheduler the tasks' -Tag 'Windows' {
    BeforeAll { $folder = Join-Path -Path $TestDrive -ChildPath 'installed' }

    It 'are registered once, however often' {
        foreach ($turn in 1..2) { & $installer -InstallFolder $folder -RestartOn External -Webhook env:HEALTH_WEBHOOK -Keep 3 }
        $tasks = @(Get-ScheduledTask -TaskPath '\PillSnap\')
        $tasks.Count | Should -Be 2
        $watch = $tasks | Where-Object { $_.TaskName -eq 'HealthWatch' }
        $watch.Triggers[0].Repetition.Interval | Should -Be 'PT1M'
        $watch.Settings.ExecutionTimeLimit | Should -Be 'PT15M'
        $watch.Settings.MultipleInstances | Should -Be 'IgnoreNew'
        $watch.Principal.UserId | Should -Be 'SYSTEM'
        $watch.Actions[0].Execute | Should -Be (Get-EnginePath)
        $watch.Actions[0].Arguments | Should -Match 'health_watch\.ps1" -RestartOn External -Webhook env:HEALTH_WEBHOOK$'
        $rotate = $tasks | Where-Object { $_.TaskName -eq 'RotateLogs' }
        $rotate.Settings.ExecutionTimeLimit | Should -Be 'PT2H'
        $rotate.Triggers[0].StartBoundary | Should -Match 'T03:00:00'
        $rotate.Actions[0].Arguments | Should -Match 'rotate_logs\.ps1" -Keep 3$'
    }

    It 'are removed, and removing again is no error' {
        foreach ($turn in 1..2) { & $installer -InstallFolder $folder -Remove }
        Get-ScheduledTask -TaskPath '\PillSnap\' -ErrorAction SilentlyContinue | Should -BeNullOrEmpty
    }
}
