#Requires -Version 5.1
# Pester 5: what the engine's own syntax tree tells of the scripts and of their tests.

BeforeDiscovery {
    $root = Split-Path -Path (Split-Path -Path $PSScriptRoot -Parent) -Parent
    $files = @('scripts', 'tests/pester' | ForEach-Object { Get-ChildItem -Path (Join-Path -Path $root -ChildPath $_) -Filter '*.ps1' } |
            ForEach-Object { @{ name = $_.Name; path = $_.FullName } })
}

BeforeAll {
    $onWindows = @(
        'Get-CimInstance', 'Get-ScheduledTask', 'Get-Service', 'Get-WinEvent', 'New-ScheduledTaskAction', 'New-ScheduledTaskPrincipal'
        'New-ScheduledTaskSettingsSet', 'New-ScheduledTaskTrigger', 'Register-ScheduledTask', 'Unregister-ScheduledTask'
    )

    $scripts = @(Get-ChildItem -Path (Join-Path -Path (Split-Path -Path (Split-Path -Path $PSScriptRoot -Parent) -Parent) -ChildPath 'scripts') -Filter '*.ps1' | ForEach-Object { $_.FullName })

    function Get-OwnName {
        param([string]$Text)
        $tree = [System.Management.Automation.Language.Parser]::ParseInput($Text, [ref]$null, [ref]$null)
        return @($tree.FindAll({ $args[0] -is [System.Management.Automation.Language.FunctionDefinitionAst] }, $true) | ForEach-Object { $_.Name })
    }

    function Get-Finding {
        # What breaks a rule in a script's text: unreadable, a bare negative number, text compared or
        # sorted by the culture, a verb of its own, a command that is nowhere.
        param([string]$Text, [string[]]$Elsewhere = @())
        $errors = $null
        $tree = [System.Management.Automation.Language.Parser]::ParseInput($Text, [ref]$null, [ref]$errors)
        foreach ($one in $errors) { "unreadable: $($one.Message)" }
        foreach ($command in $tree.FindAll({ $args[0] -is [System.Management.Automation.Language.CommandAst] }, $true)) {
            foreach ($word in $command.CommandElements) {
                # Handed to a parameter without a type it arrives as text: it must stand in brackets.
                if ($word.Extent.Text -match '^-[0-9]') { "a bare negative number: $($command.Extent.Text)" }
            }
        }
        $ordered = '^[IC]?(ge|gt|le|lt)$'
        foreach ($one in $tree.FindAll({ $args[0] -is [System.Management.Automation.Language.BinaryExpressionAst] }, $true)) {
            $texts = @($one.Left, $one.Right | Where-Object { $_.StaticType -eq [string] })
            if (("$($one.Operator)" -match $ordered) -and ($texts.Count -gt 0)) { "text ordered by the culture: $($one.Extent.Text)" }
        }
        $own = @(Get-OwnName -Text $Text)
        $verbs = @((Get-Verb).Verb)
        foreach ($command in $tree.FindAll({ $args[0] -is [System.Management.Automation.Language.CommandAst] }, $true)) {
            $name = $command.GetCommandName()
            if (($null -eq $name) -or ((@($own) + $onWindows + $Elsewhere) -contains $name)) { continue }
            if ($name -eq 'Sort-Object') { "text sorted by the culture: $($command.Extent.Text)" }
            if ($null -eq (Get-Command -Name $name -ErrorAction SilentlyContinue)) { "no such command: $name" }
        }
        foreach ($name in $own) { if ($verbs -notcontains ($name -split '-')[0]) { "no approved verb: $name" } }
    }
}

Describe 'the rules' {
    It 'hold for <name>' -ForEach $files {
        # A test calls the functions of the script that it reads.
        $elsewhere = @()
        if ($path -match 'pester') { $elsewhere = @($scripts | ForEach-Object { Get-OwnName -Text ([System.IO.File]::ReadAllText($_)) }) }
        @(Get-Finding -Text ([System.IO.File]::ReadAllText($path)) -Elsewhere $elsewhere) -join '; ' | Should -BeExactly ''
    }

    It 'have <name> be strict, stop at errors and do nothing when it is only read' -ForEach ($files | Where-Object { $_.path -notmatch 'pester' }) {
        $text = [System.IO.File]::ReadAllText($path)
        foreach ($line in @('#Requires -Version 5\.1', 'Set-StrictMode -Version Latest', '\$ErrorActionPreference = .Stop.')) {
            $text | Should -Match "(?m)^$line\r?$"
        }
        $tree = [System.Management.Automation.Language.Parser]::ParseInput($text, [ref]$null, [ref]$null)
        $statements = @($tree.EndBlock.Statements | Where-Object { $_.GetType().Name -notmatch '^(FunctionDefinition|Assignment)' })
        $statements[0].Extent.Text | Should -BeExactly 'Set-StrictMode -Version Latest'
        $statements.Count | Should -Be 2
        $statements[1].Clauses[0].Item1.Extent.Text | Should -BeExactly '$MyInvocation.InvocationName -ne ''.'''
    }

    It 'notice a spoiled script: <spoiled>' -ForEach @(
        @{ spoiled = 'if ($x) {'; says = '^unreadable' }
        @{ spoiled = 'Get-Optional -Name a -Default -1'; says = '^a bare negative number' }
        @{ spoiled = 'if ($name -ge ''b'') { }'; says = '^text ordered by the culture' }
        @{ spoiled = 'if ("$a" -lt $b) { }'; says = '^text ordered by the culture' }
        @{ spoiled = '$names | Sort-Object'; says = '^text sorted by the culture' }
        @{ spoiled = 'Get-Eror'; says = '^no such command: Get-Eror$' }
        @{ spoiled = 'function Do-It { }'; says = '^no approved verb' }
    ) {
        @(Get-Finding -Text $spoiled) -join '; ' | Should -Match $says
    }

    It 'let a number in brackets pass' {
        @(Get-Finding -Text 'Get-Optional -Default (-1); $x -ge -1' -Elsewhere 'Get-Optional') -join '; ' | Should -BeExactly ''
    }
}
