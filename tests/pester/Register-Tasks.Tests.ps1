#Requires -Version 5.1
# Pester 5: the tasks are registered, renewed and removed; on a machine whose Task Scheduler may be
# used, such as a runner of the workflow.

BeforeAll {
    $root = Split-Path -Path (Split-Path -Path $PSScriptRoot -Parent) -Parent
    $script = Join-Path -Path $root -ChildPath 'scripts/Register-Tasks.ps1'
    $folder = Join-Path -Path $TestDrive -ChildPath 'installed'
}

Describe 'the tasks' {
    It 'are only shown with -WhatIf' {
        & $script -InstallFolder $folder -WhatIf
        Get-ScheduledTask -TaskPath '\PillSnap\' -ErrorAction SilentlyContinue | Should -BeNullOrEmpty
        Test-Path -Path $folder | Should -BeFalse
    }

    It 'are registered once, however often' {
        foreach ($turn in 1..2) { & $script -InstallFolder $folder -HealthArguments '-RestartOn External' }
        $tasks = @(Get-ScheduledTask -TaskPath '\PillSnap\')
        $tasks.Count | Should -Be 2
        $watch = $tasks | Where-Object { $_.TaskName -eq 'HealthWatch' }
        $watch.Triggers[0].Repetition.Interval | Should -Be 'PT1M'
        $watch.Settings.ExecutionTimeLimit | Should -Be 'PT10M'
        $watch.Settings.MultipleInstances | Should -Be 'IgnoreNew'
        $watch.Principal.UserId | Should -Be 'SYSTEM'
        $watch.Actions[0].Arguments | Should -Match 'health_watch\.ps1" -RestartOn External$'
        $rotate = $tasks | Where-Object { $_.TaskName -eq 'RotateLogs' }
        $rotate.Settings.ExecutionTimeLimit | Should -Be 'PT2H'
        $rotate.Triggers[0].StartBoundary | Should -Match 'T03:00:00'
        foreach ($name in @('health_watch.ps1', 'rotate_logs.ps1')) {
            Test-Path -Path (Join-Path -Path $folder -ChildPath $name) | Should -BeTrue
        }
    }

    It 'are removed, and removing again is no error' {
        foreach ($turn in 1..2) { & $script -InstallFolder $folder -Remove }
        Get-ScheduledTask -TaskPath '\PillSnap\' -ErrorAction SilentlyContinue | Should -BeNullOrEmpty
    }
}
